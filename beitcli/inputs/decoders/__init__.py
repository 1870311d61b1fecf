"""Checks and corrections of single image formats, around the decoders that Pillow brings."""
