"""World models with learned networks: the rollout, a reconstruction, and the presets that fill them with weights."""
