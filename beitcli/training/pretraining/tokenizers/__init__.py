"""Tokenizers of images: the visual tokens that a pre-training predicts, one for each patch."""
