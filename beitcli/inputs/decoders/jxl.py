"""JPEG XL through Pillow's plugin, from the extra `jxl`."""

from io import BytesIO

from PIL import Image

from beitcli.errors import ImageError

SIGNATURES = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
"""First bytes of a bare codestream and of a file of boxes (ISO/IEC 18181-2)."""

_RATIOS = {1: (1, 1), 2: (6, 5), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
"""Width to height by their code (ISO/IEC 18181-1, table D.2)."""


def open_image(data: bytes) -> Image.Image:
    """The image, decoded and already upright, except a packed JPEG, whose EXIF counts as in any JPEG.

    Raises ImageError without the extra, and where the data is damaged.
    """
    try:
        from pillow_jxl import JpegXLImagePlugin
    except ImportError:
        hint = "JPEG XL images need the extra `jxl`: pip install 'beitcli[jxl]'"
        raise ImageError("unsupported", hint) from None
    JpegXLImagePlugin.DECODE_THREADS = 0  # as many workers as there are cores decode already
    try:
        image: Image.Image = JpegXLImagePlugin.JXLImageFile(BytesIO(data))
    except RuntimeError as error:  # its message is about building the library
        raise ImageError("corrupt", "the JPEG XL data is cut or damaged") from error
    if not getattr(image, "jpeg", False):
        image.info.pop("exif", None)  # the decoder has applied the codestream's orientation
    return image


def size(data: bytes) -> tuple[int, int]:
    """Width and height from the header, without decoding (ISO/IEC 18181-1, D.2). Raises ImageError if cut."""
    start = 0 if data.startswith(SIGNATURES[0]) else _codestream(data)
    bits = int.from_bytes(data[start + 2 : start + 14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    is_small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if is_small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = _RATIOS.get(take(3))
    return (height * ratio[0] // ratio[1] if ratio else side()), height


def _codestream(data: bytes) -> int:
    """Start of the codestream in a file of boxes."""
    start = 0
    while start + 8 <= len(data):
        length, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8]
        content = start + (16 if length == 1 else 8)
        if kind == b"jxlc":
            return content
        if kind == b"jxlp":
            return content + 4
        length = int.from_bytes(data[start + 8 : start + 16], "big") if length == 1 else length
        if length < 8:
            break
        start += length
    raise ImageError("truncated", "the JPEG XL file ends before its image")
