"""The Lyra 2 video model: network, VAE, encoders, memory, sampling and rollout."""
