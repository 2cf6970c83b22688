"""Every choice a user has about a world's video and its Gaussians, declared once. No torch: planning reads it."""
