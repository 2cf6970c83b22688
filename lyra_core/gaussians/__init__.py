"""From video to 3D Gaussians and from Gaussians to images."""
