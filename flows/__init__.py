"""Prefect flows and recipes; generate.py is the file to read first."""
