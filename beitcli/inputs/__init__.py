"""Image sources: discovery, download and decoding."""
