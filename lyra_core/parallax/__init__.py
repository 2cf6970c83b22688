"""The baseline without learning: depth from pictorial cues, layers, filled-in backgrounds, moving cameras."""
