"""Foreign and own weights: registry, adapter, conversion."""
