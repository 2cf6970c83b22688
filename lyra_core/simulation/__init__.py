"""Worlds in a simulator: does what is dropped at the spawn point come to rest, and does a robot stand there."""
