"""Depth Anything 3, inference: depth, cameras and Gaussians from any number of views."""
