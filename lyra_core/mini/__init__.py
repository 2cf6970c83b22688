"""The embedded model: configuration, networks, depth, packed weights."""
