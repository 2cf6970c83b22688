"""Layers of a photograph by depth: what it shows and what continues behind it, as surfaces and as splats."""
