"""Checks and corrections of single image formats, around Pillow's decoders."""
