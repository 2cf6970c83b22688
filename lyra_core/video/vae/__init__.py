"""The causal video autoencoder: its network, the interface the rollout uses, and the photograph that stands still."""
