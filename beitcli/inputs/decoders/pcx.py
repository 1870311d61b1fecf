"""PCX: Pillow takes an image of 256 colours for a grey one when its palette, which comes last, is gone."""

from PIL import Image

from beitcli.errors import PictureError

_PALETTE_SIZE = 769  # with the byte before it, which is 12
_GREY = 2  # palette information: shades of grey need no palette


def check_palette(image: Image.Image, data: bytes) -> None:
    """Raise PictureError if the palette that an image of 256 colours should have is not at the end of the file."""
    has_palette = len(data) > 128 + _PALETTE_SIZE and data[-_PALETTE_SIZE] == 12
    if image.mode == "L" and data[68] != _GREY and not has_palette:
        raise PictureError("truncated", "the palette at the end of the file is missing")
