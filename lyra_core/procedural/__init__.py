"""Procedural worlds: a ray tracer, scenes, camera paths and clips with exact geometry; no data set."""
