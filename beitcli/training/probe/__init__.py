"""Linear probes: features -> a linear layer -> a checkpoint."""
