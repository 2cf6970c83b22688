"""Fine-tuning of the released video network on one's own clips."""
