"""The training pipeline of mini: steps over the GPUs of one machine, resumable."""
