"""A page of images with their labels, which a browser opens without a server."""
