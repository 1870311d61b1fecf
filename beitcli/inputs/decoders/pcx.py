"""PCX: check for the palette at the end, without which Pillow reads an image of 256 colours as a grey one."""

from PIL import Image

from beitcli.errors import ImageError

_PALETTE_SIZE = 769  # with the byte before it, which is 12
_GREY = 2  # palette information: shades of grey need no palette


def check_palette(image: Image.Image, data: bytes) -> None:
    """Raise ImageError if an image of 256 colours has no palette at the end of the file."""
    has_palette = len(data) > 128 + _PALETTE_SIZE and data[-_PALETTE_SIZE] == 12
    if image.mode == "L" and data[68] != _GREY and not has_palette:
        raise ImageError("truncated", "the palette at the end of the file is missing")
