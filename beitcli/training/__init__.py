"""Labelled images -> a checkpoint of their classes."""
