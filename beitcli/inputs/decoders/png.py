"""PNG: only the chunks that determine the pixels reach the decoder, and their checksums are verified.

Pillow reads every note (text, profiles, gamma) and rejects the image for one that is broken or large, but it does not
verify the checksum of the pixels.
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

from PIL import Image, PngImagePlugin

from beitcli.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
"""Chunks that determine the pixels (PNG, 3rd edition, 5.6)."""

_COLOUR_TYPE = 25  # offset of the byte that is 3 for a palette
_APPLE = b"CgBI"
_END = b"\0\0\0\0IEND\xaeB`\x82"

_LONGEST_NOTE = 1 << 20
_NOTES = {b"Raw profile type exif": "Raw profile type exif", b"XML:com.adobe.xmp": "xmp"}
"""Text that may hold the orientation, as ImageMagick and Adobe write it, and its keys in Pillow's `info`."""


def open_image(data: bytes) -> Image.Image:
    """The image with only its header read.

    Raises ImageError where a chunk that determines the pixels is cut or damaged, and for Apple's own variant.
    """
    pixels, notes = _split(data)
    if b"IDAT" not in pixels:
        raise ImageError("truncated", "the PNG ends before its image")
    if pixels[_COLOUR_TYPE] == 3 and b"PLTE" not in pixels[: pixels.index(b"IDAT")]:
        raise ImageError("corrupt", "the PNG's palette is missing")
    image = PngImagePlugin.PngImageFile(BytesIO(pixels))
    image.info.update(notes)
    _scale_transparency(image)
    return image


def _scale_transparency(image: PngImagePlugin.PngImageFile) -> None:
    """Scale the transparent colour from the file's depth to the 8 bits in which Pillow compares it."""
    clear, raw = image.info.get("transparency"), image.tile[0][3] if image.tile else None
    if raw == "RGB;16B" and isinstance(clear, tuple):
        image.info["transparency"] = tuple(v >> 8 for v in clear)
    elif raw in ("L;2", "L;4") and isinstance(clear, int):
        image.info["transparency"] = clear * (85 if raw == "L;2" else 17)


def check_embedded(data: bytes) -> None:
    """Raise ImageError if a PNG inside another file, such as an icon, is cut or damaged."""
    start = data.find(SIGNATURE)
    while start >= 0:
        _split(data[start:])
        start = data.find(SIGNATURE, start + len(SIGNATURE))


def _split(data: bytes) -> tuple[bytes, dict[str, bytes | str]]:
    """A PNG of the chunks that determine the first frame's pixels, and the notes that may hold the orientation."""
    view = memoryview(data)
    kept: list[bytes | memoryview] = [SIGNATURE]
    notes: dict[str, bytes | str] = {}
    for kind, start, end in _chunks(data):
        if kind == _APPLE:
            raise ImageError("unsupported", "Apple's CgBI variant of PNG is not opened")
        is_needed = kind in _PIXELS
        if end > len(data):
            if is_needed:
                raise ImageError("truncated", f"the PNG ends within its {kind.decode()} chunk")
            break
        content = view[start + 8 : end - 4]
        if is_needed:
            if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                raise ImageError("corrupt", f"the PNG's {kind.decode()} chunk has a wrong checksum")
            kept.append(view[start:end])
        elif len(content) <= _LONGEST_NOTE:
            with suppress(ValueError, zlib.error):
                notes.update(_note(kind, bytes(content)))
    return b"".join((*kept, _END)), notes


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk before IEND; the last one may end beyond the data."""
    start = len(SIGNATURE)
    while start + 8 <= len(data):
        kind = data[start + 4 : start + 8]
        if kind == b"IEND" or not kind.isalpha():
            return
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        yield kind, start, end
        start = end


def _note(kind: bytes, content: bytes) -> dict[str, bytes | str]:
    """The chunk as in Pillow's `info`, if it may hold the orientation. Raises ValueError, zlib.error if broken."""
    if kind == b"eXIf":
        return {"exif": b"Exif\0\0" + content}
    keyword, _, rest = content.partition(b"\0")
    if keyword not in _NOTES or kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return {}
    packed = kind == b"zTXt"
    if kind == b"zTXt":
        rest = rest[1:]  # the method
    elif kind == b"iTXt":
        packed = rest[0:1] == b"\1"
        _language, _translated, rest = rest[2:].split(b"\0", 2)
    text = zlib.decompressobj().decompress(rest, _LONGEST_NOTE) if packed else rest
    key = _NOTES[keyword]
    return {key: text if key == "xmp" else text.decode("latin-1")}
