"""Labelled images -> batches of pixels."""
