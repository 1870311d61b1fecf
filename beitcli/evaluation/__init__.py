"""Evaluation of a model on labelled images."""
