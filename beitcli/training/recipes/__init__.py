"""Recipes of a training: network, optimizer, schedule, augmentation."""
