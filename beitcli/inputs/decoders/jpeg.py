"""JPEG: bytes -> pixels by libjpeg-turbo, with its warnings assessed instead of ignored.

Pillow drops libjpeg's warnings. simplejpeg gives the same pixels and raises the first warning instead. Notes (text,
profiles, EXIF) are hidden from Pillow, which rejects an image with a broken one.
"""

from collections import deque
from io import BytesIO
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, JpegImagePlugin

from beitcli.errors import ImageError
from beitcli.inputs.decoders.huffman import check_entropy_coded_data
from beitcli.inputs.decoders.jpeg_stream import (
    SOF_ARITHMETIC,
    SOF_HUFFMAN,
    SOF_PROGRESSIVE,
    Segment,
    has_all_scans,
    quantization_steps,
    segments,
)

SIGNATURE = b"\xff\xd8\xff"

_TRUNCATED = "premature end of data segment"
_LOST = (_TRUNCATED, "bad Huffman code", "found marker", "bad arithmetic code")
"""Words of the warnings (libjpeg's jerror.h) that always mean invented pixels; others may mean no loss."""

_ZEROS = bytes(32)
"""Lost sectors are often zeros, which libjpeg may read without a warning; valid images of one colour have them too."""

_EOI = b"\xff\xd9"
_SOS, _DQT, _APP1, _COMMENT = 0xDA, 0xDB, 0xE1, 0xFE
_APPLICATION = range(0xE0, 0xF0)
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"

_KINDS = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xC9: "arithmetic-coded",
    0xCA: "arithmetic-coded",
    0xCB: "lossless arithmetic-coded",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
    0xDE: "hierarchical",
    0xF7: "lossless (JPEG-LS)",
}
"""Kinds of JPEG by the marker of their first frame (ITU-T T.81, table B.1; T.87 for JPEG-LS)."""

_SOF_LOSSLESS = 0xC3
_SUPPORTED_FRAMES = (*SOF_HUFFMAN, *SOF_ARITHMETIC, _SOF_LOSSLESS)

_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""simplejpeg's names of Pillow's modes."""

_LARGE = 1_000_000
"""Pixels from which colours are decoded four bytes wide, as Pillow stores them: a fifth faster for 12 megapixels."""


class Parts(NamedTuple):
    """A JPEG whose notes are turned into comments, the marker of its frame, and the start of its first scan.

    `in_one_scan` is true if that scan holds the whole image. `notes` are those that give the orientation, by the keys
    of Pillow's `info`.
    """

    data: bytearray
    frame: int
    scan: int
    in_one_scan: bool
    notes: dict[str, bytes]

    @property
    def scalable(self) -> bool:
        """True if it can be decoded smaller: for a lossless one turbojpeg then writes beyond its buffer."""
        return self.frame != _SOF_LOSSLESS


def parts(data: bytearray) -> Parts:
    """Parse the JPEG in place: a copy of a large one would take a tenth of the time of a scaled decode.

    Raises ImageError, `unsupported`, for a kind that is not opened, by its markers.
    """
    frame, components, notes = 0, 0, dict[str, bytes]()
    for segment in segments(data):
        marker, content = segment.marker, segment.content
        if marker == _SOS:
            in_one_scan = frame not in (SOF_PROGRESSIVE, SOF_ARITHMETIC[1]) and content[:1] == bytes((components,))
            return Parts(data, frame, segment.end, in_one_scan, notes)
        if marker in _KINDS:
            if kind := _unread_kind(segment):
                raise ImageError("unsupported", f"{kind} JPEG is not opened")
            frame, components = marker, content[5] if len(content) > 5 else 0
        if marker == _DQT and any(b"\0" in content[place : place + 64] for place in range(1, len(content), 65)):
            deque(quantization_steps(content), maxlen=0)  # raises for steps of 0, which libjpeg accepts
        if marker not in _APPLICATION or _decides_colours(content):
            continue
        data[segment.start + 1] = _COMMENT
        if marker == _APP1 and content.startswith(_EXIF):
            notes["exif"] = notes["exif"] + content[len(_EXIF) :] if "exif" in notes else content
        elif marker == _APP1 and content.startswith(_XMP):
            notes["xmp"] = content[len(_XMP) :]
    raise ImageError("truncated", "the JPEG ends before its image")


def _unread_kind(segment: Segment) -> str | None:
    if segment.marker not in _SUPPORTED_FRAMES:
        return _KINDS[segment.marker]
    if len(segment.content) < 6:
        return None
    precision, components = segment.content[0], segment.content[5]
    if precision != 8:
        return f"{precision}-bit"
    if not any(segment.content[1:3]):
        return "height-in-DNL"
    return None if components in (1, 3, 4) else f"{components}-component"


def _decides_colours(content: bytes) -> bool:
    return (content.startswith(b"JFIF\0") and len(content) >= 14) or (
        content.startswith(b"Adobe") and len(content) >= 12
    )


def header(jpeg: Parts) -> Image.Image:
    """Pillow's image with only its header read."""
    image = JpegImagePlugin.JpegImageFile(BytesIO(jpeg.data[: jpeg.scan]))
    image.info.update(jpeg.notes)
    return image


def load(image: Image.Image, jpeg: Parts) -> Image.Image:
    """The pixels of the JPEG whose header is `image`, in the size set by `image.draft`.

    Raises ImageError where coded data is lost or damaged.
    """
    _check_silent_damage(jpeg)
    height, width = (image.height, image.width) if getattr(image, "decoderconfig", None) else (0, 0)

    colours = "RGBX" if image.mode == "RGB" and image.width * image.height >= _LARGE else _COLOURS[image.mode]

    def decode(strict: bool) -> np.ndarray:
        pixels: np.ndarray = simplejpeg.decode_jpeg(
            jpeg.data, colours, min_height=height, min_width=width, strict=strict
        )
        return pixels

    try:
        pixels = decode(strict=True)
    except ValueError as error:
        _assess_warning(jpeg, colours, str(error))
        try:
            pixels = decode(strict=False)
        except ValueError:  # sampling factors that turbojpeg does not know
            return _by_pillow(jpeg, image)
    if pixels.shape[:2] != (image.height, image.width):
        raise ImageError("corrupt", f"{image.width} × {image.height} pixels by one header, {pixels.shape} by another")
    if image.mode == "CMYK":  # always written inverted, as Adobe does it
        pixels = np.invert(pixels)
    whole = Image.frombuffer(image.mode, image.size, pixels, "raw", "L" if image.mode == "L" else colours, 0, 1)
    whole.info.update(jpeg.notes)
    return whole


def _by_pillow(jpeg: Parts, header: Image.Image) -> Image.Image:
    image = JpegImagePlugin.JpegImageFile(BytesIO(jpeg.data))
    if header.size != image.size:
        image.draft(None, header.size)
    image.load()
    image.info.update(jpeg.notes)
    return image


def check_stream(data: bytes) -> None:
    """Raise ImageError if the coded data of a JPEG, such as one strip of a TIFF, is lost or damaged."""
    jpeg = parts(bytearray(data))
    _check_silent_damage(jpeg)
    colours = "RGB"
    try:
        *_, own, _ = simplejpeg.decode_jpeg_header(jpeg.data)
        colours = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(own, colours)
        simplejpeg.decode_jpeg(jpeg.data, colours)
    except ValueError as error:
        _assess_warning(jpeg, colours, str(error))


def _assess_warning(jpeg: Parts, colours: str, warning: str) -> None:
    """Raise ImageError unless the warning concerns no pixel."""
    if any(words in warning for words in _LOST):
        raise ImageError("truncated" if _TRUNCATED in warning else "corrupt", warning)
    if jpeg.frame in SOF_HUFFMAN:
        check_entropy_coded_data(jpeg.data)
    elif jpeg.frame and not _is_readable(jpeg.data, colours):
        raise ImageError("unsupported", f"{_KINDS[jpeg.frame]} JPEG is not opened by the libjpeg-turbo that is here")
    else:
        raise ImageError("corrupt", warning)


def _is_readable(data: bytearray, colours: str) -> bool:
    try:
        simplejpeg.decode_jpeg(data, colours, strict=False)
    except ValueError:
        return False
    return True


def _check_silent_damage(jpeg: Parts) -> None:
    """Raise ImageError for damage without a warning of libjpeg: missing scans, and zeros."""
    if not jpeg.in_one_scan and jpeg.frame != _SOF_LOSSLESS and not has_all_scans(jpeg.data):
        raise ImageError("truncated", "the JPEG ends before its last scan")
    zeros = jpeg.data.find(_ZEROS, jpeg.scan)
    if zeros >= 0 and jpeg.data.find(_EOI, jpeg.scan, zeros) < 0 and jpeg.frame in SOF_HUFFMAN:
        check_entropy_coded_data(jpeg.data, only_with=_ZEROS)
