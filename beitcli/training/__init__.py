"""Labelled pictures -> a checkpoint of their classes."""
