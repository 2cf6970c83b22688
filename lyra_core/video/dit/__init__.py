"""The video diffusion transformer: packed tokens, attention, blocks, kernels and speed profiles."""
