"""World models by name: from a photograph to a clip and from a clip to Gaussians."""
