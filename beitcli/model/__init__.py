"""Checkpoints and inference: pixels in, scores or features out."""
