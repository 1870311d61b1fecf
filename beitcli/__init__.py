"""beit: classify images in bulk with BEiT vision transformers."""

__version__ = "0.1.0"
