"""Procedural worlds and training loops."""
