"""Cameras, camera paths and warping."""
