"""Cosmos 3 (NVIDIA) as a video model, through the library diffusers."""
