"""Sorting of images into a folder for each label, journalled so that it can be finished or undone after a kill."""
