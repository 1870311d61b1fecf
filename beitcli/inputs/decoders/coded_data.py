"""WebP and JPEG 2000: lost sectors in coded data, which their decoders read as pixels."""

import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from beitcli.errors import ImageError

_ZEROS = re.compile(rb"\0{33,}")
"""Zero bytes in a row, of which packed WebP data has fewer but for large areas of one colour."""

_PIXELS_A_ZERO_BYTE = 300
"""Lossy WebP of one colour is nothing but zeros: a byte for 360 pixels with the least effort, for 10,350 as usual."""

_JPEG2000_CODESTREAM = b"\xff\x4f\xff\x51"
_LONGEST_IN_JPEG2000 = 512
"""Zero bytes: an empty packet may be one (ITU-T T.800, B.10.3), and a single colour has one a layer and resolution."""

_FORBIDDEN_IN_JPEG2000 = re.compile(rb"\xff[\x90\x93-\xff]")
"""Bytes that coded data never has, except in the markers 0xFF91 and 0xFF92 around packets (T.800, A.8 and B.10.1)."""


def load_webp(image: Image.Image, data: bytes) -> Image.Image:
    """The image's pixels. Raises ImageError if zeros in its coded data are not areas of one colour.

    libwebp reads lost data as further pixels. In valid data a zero byte encodes several that equal their neighbours.
    """
    image.load()
    for kind, start, end in _webp_chunks(data, 12, len(data)):
        longest = max((len(zeros) for zeros in _ZEROS.findall(data, start, end)), default=0)
        if kind == b"VP8 ":
            # the size is in the frame header (RFC 6386, 9.1)
            width, height = (int.from_bytes(data[start + at : start + at + 2], "little") & 0x3FFF for at in (6, 8))
            is_lost = longest > width * height // _PIXELS_A_ZERO_BYTE + 33
        else:
            is_lost = longest > 0 and longest > _longest_plain_run(np.asarray(image.convert("RGBA")))
        if is_lost:
            raise ImageError("corrupt", f"{longest} zero bytes in the image's coded data")
    return image


def _webp_chunks(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk of coded colours (RFC 9649, 2.3); only of the first frame."""
    while start + 8 < stop:
        kind, end = data[start : start + 4], start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        if kind == b"ANMF":
            yield from _webp_chunks(data, start + 24, min(end, stop))
            return
        if kind in (b"VP8 ", b"VP8L"):
            yield kind, start + 8, end
        start = end + end % 2


def _longest_plain_run(pixels: np.ndarray) -> int:
    """Length of the longest run of pixels, across lines, that equal the one above or before."""
    packed = np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
    plain = np.zeros(packed.shape, bool)
    plain[:, 1:] = packed[:, 1:] == packed[:, :-1]
    plain[1:] |= packed[1:] == packed[:-1]
    ends = np.flatnonzero(~plain.ravel())
    return int(np.diff(ends, prepend=-1, append=plain.size).max()) - 1


def check_jpeg2000(data: bytes) -> None:
    """Raise ImageError if the tiles of a JPEG 2000 hold bytes that no coder writes."""
    start = data.find(_JPEG2000_CODESTREAM)
    for begin, end in _tile_data(data, start) if start >= 0 else ():
        if data.find(bytes(_LONGEST_IN_JPEG2000), begin, end) >= 0 or _FORBIDDEN_IN_JPEG2000.search(data, begin, end):
            raise ImageError("corrupt", "a lost sector in the image's coded data")


def _tile_data(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Start and end of the coded data of each tile-part (T.800, A.4)."""
    position = data.find(b"\xff\x90", start)
    while data[position : position + 2] == b"\xff\x90" and position >= 0:
        length = int.from_bytes(data[position + 6 : position + 10], "big")
        end = position + length if length else max(data.rfind(b"\xff\xd9"), position)
        begin = position + 12
        while begin < end and data[begin : begin + 2] != b"\xff\x93":  # segments before the data
            begin += 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")
        yield begin + 2, end
        position = end
