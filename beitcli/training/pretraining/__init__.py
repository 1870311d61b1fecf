"""Self-supervised pre-training: a BEiT learns to predict the visual tokens of masked patches."""
