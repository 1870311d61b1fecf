"""Strips and tiles of TIFF that can be checked for completeness, which libtiff does not do."""

import io
import re
import zlib

import numpy as np
from PIL import Image

from beitcli.errors import ImageError
from beitcli.inputs.decoders.samples import Samples
from beitcli.inputs.decoders.tiff_layout import first_page
from beitcli.inputs.decoders.tiff_tags import read_at

_DEFLATE = (8, 32946)
CHECKED = (*_DEFLATE, 34925)
"""Compressions that carry a checksum: deflate and LZMA."""

_PIECE = 1 << 20
_END_OF_FAX = 0x001001
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def inflated(data: bytes, size: int, compression: int) -> bytes:
    """The first `size` bytes of a strip of deflate or LZMA; raises ImageError where its checksum contradicts them."""
    try:
        plain, whole = _inflated(data, size) if compression in _DEFLATE else _expanded(data, size)
    except zlib.error as error:
        raise ImageError("corrupt", "the TIFF's deflate data is damaged") from error
    if not whole or len(plain) < size:
        raise ImageError("truncated", "the TIFF's compressed data ends too early")
    return plain


def _inflated(data: bytes, size: int) -> tuple[bytes, bool]:
    machine = zlib.decompressobj()
    plain = machine.decompress(data, size)
    while not machine.eof and machine.unconsumed_tail:  # the last strip may hold more rows; the checksum comes after
        machine.decompress(machine.unconsumed_tail, _PIECE)
    return plain, machine.eof


def _expanded(data: bytes, size: int) -> tuple[bytes, bool]:
    try:
        import lzma
    except ImportError:  # Python can be built without
        raise ImageError("unsupported", "TIFF with LZMA compression is not opened by this Python") from None
    machine = lzma.LZMADecompressor()
    try:
        plain = machine.decompress(data, size)
        while not machine.eof and not machine.needs_input:
            machine.decompress(b"", _PIECE)
    except lzma.LZMAError as error:
        raise ImageError("corrupt", "the TIFF's LZMA data is damaged") from error
    return plain, machine.eof


def check_fax(data: bytes, compression: int, mirrored: bool, rows: Samples) -> None:
    """Raise ImageError where a strip of fax, decoded to these rows, is detectably incomplete.

    libtiff leaves missing rows white. Detected: a missing end, and zeros in the middle, as in a file with lost blocks.
    Not detected: wrong bits in the middle with the end in place.
    """
    if mirrored:
        data = data.translate(_MIRRORED)
    body = data.rstrip(b"\0")
    if compression == 3:
        bits = np.unpackbits(np.frombuffer(data, np.uint8)).tobytes()
        lines = len(re.findall(rb"\0{11}\x01", bits))
        if 0 < lines < len(rows):  # a code precedes each line; some writers omit all of them
            raise ImageError("truncated", f"the TIFF's fax has {lines} lines of {len(rows)}")
    elif b"\0" * 4 in body:  # no sequence of codes has as many
        raise ImageError("corrupt", "the TIFF's fax data has gaps")
    elif compression == 4 and not _ends(body) and not _is_code_of(data, rows):
        raise ImageError("truncated", "the TIFF's fax ends too early")


def _ends(body: bytes) -> bool:
    """True if the last bits, except zeros, are the end code that TIFF 6 requires of every strip of T.6."""
    last = int.from_bytes(body[-4:], "big")
    return (last // (last & -last or 1)) & 0xFFFFFF == _END_OF_FAX


def _is_code_of(data: bytes, rows: Samples) -> bool:
    """True if the data begins with the rows' T.6 code, which is unique, so that no row is missing."""
    stream = io.BytesIO()
    Image.fromarray(rows.astype(bool)).save(stream, "TIFF", compression="group4", tiffinfo={278: len(rows)})
    page = first_page(stream)
    (part,) = page.parts()
    code = read_at(stream, part.offset, part.size, "strip").rstrip(b"\0")
    value = int.from_bytes(code, "big")
    spare = (value & -value).bit_length() - 1 + 24  # the zeros that fill the last byte, and the end
    length = 8 * len(code) - spare
    return 8 * len(data) >= length and int.from_bytes(data, "big") >> (8 * len(data) - length) == value >> spare
