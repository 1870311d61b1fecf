"""First bytes -> the header of an image: its size, and how to load its pixels and orientation.

Pillow identifies the format, except kinds that are recognised by their own markers.
"""

import struct
from collections.abc import Callable
from functools import partial
from io import SEEK_END, BytesIO
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError

from beitcli.errors import ImageError
from beitcli.inputs.decoders import coded_data, isobmff, jpeg, jxl, pcx, png, raw, tiff
from beitcli.inputs.decoders.process_settings import limit_pixels
from beitcli.inputs.decoders.tiff_layout import first_page
from beitcli.inputs.decoders.tiff_tags import SIGNATURES as TIFF_SIGNATURES
from beitcli.inputs.formats import FORMATS, REFUSED
from beitcli.records import MOST_STREAMED

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_OTHER_HEIF_BRANDS = (b"mif2", b"miaf", b"1pic", b"avci", b"avcs", b"j2ki", b"jpeg", b"vvic")
"""Major brands of HEIF files whose images are coded neither as HEVC nor as AV1 (ISO/IEC 23008-12)."""

_USUAL_BYTES, _MOST_BYTES = 8, 40
"""Bytes of a pixel of 4 samples of 16 bits, and of 5 of 64."""

_ORIENTATION = 0x0112

_CHECKS: dict[str, Callable[[bytes], None]] = {
    "AVIF": isobmff.check,
    "HEIF": isobmff.check,
    "JPEG2000": coded_data.check_jpeg2000,
    "ICO": png.check_embedded,
    "CUR": png.check_embedded,
    "ICNS": png.check_embedded,
}
"""Checks of the whole file, by Pillow's name of its format, for damage that the decoder ignores."""


class Header(NamedTuple):
    """Size of an image that is not decoded yet; `load` gives its pixels in any of Pillow's modes.

    `pixels` is the lowest limit under which it is opened: more than its size where that is already a scaled one.
    """

    width: int
    height: int
    load: Callable[[], Image.Image]
    pixels: int


def open_header(stream: BinaryIO, max_pixels: int, scaled_to: tuple[int, int] | None = None) -> Header:
    """The image's header; `scaled_to` (height, width) lets a JPEG be decoded smaller, but never below these sides.

    Raises ImageError for what is no image, of a kind that is not opened, or larger than `max_pixels`.
    """
    limit_pixels(max_pixels)
    prefix = stream.read(64)
    stream.seek(0)
    if not prefix:
        raise ImageError("empty_file", "there are no bytes")
    for name, signatures in REFUSED.items():
        if prefix.startswith(signatures):
            raise ImageError("unsupported", f"{name} files are not opened")
    if kind := raw.kind(prefix):
        return _raw(stream, kind, max_pixels, scaled_to)
    if prefix.startswith(jpeg.SIGNATURE):
        return _jpeg(_in_place(stream), max_pixels, scaled_to)
    if prefix.startswith(png.SIGNATURE):
        return _of(png.open_image(_whole(stream)), max_pixels)
    if prefix.startswith(TIFF_SIGNATURES):
        return _tiff(stream, max_pixels, scaled_to)
    if prefix.startswith(jxl.SIGNATURES):
        data = _whole(stream)
        check_size(*jxl.size(data), max_pixels)
        return _of(jxl.open_image(data), max_pixels)
    return _by_pillow(stream, prefix, max_pixels)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where it cannot be read."""
    try:
        value = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # unreadable EXIF does not affect the pixels
        return 1
    return value if 1 <= value <= 8 else 1


def _whole(stream: BinaryIO) -> bytes:
    _rewind(stream)
    return stream.read()


def _in_place(stream: BinaryIO) -> bytearray:
    """The whole file in writable memory."""
    data = bytearray(_rewind(stream))
    del data[stream.readinto(data) :]  # type: ignore[attr-defined]  # files and BytesIO have it
    return data


def _rewind(stream: BinaryIO) -> int:
    """Seek to the start; returns the number of bytes."""
    size = stream.seek(0, SEEK_END)
    if size > MOST_STREAMED:
        raise ImageError("too_large", f"{size} bytes are more than {MOST_STREAMED}")
    stream.seek(0)
    return size


def check_size(width: int, height: int, max_pixels: int) -> int:
    """The number of pixels. Raises ImageError for more than `max_pixels`."""
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} × {height} pixels are more than {max_pixels} (--max-pixels)")
    return width * height


def _of(image: Image.Image, max_pixels: int) -> Header:
    def load() -> Image.Image:
        image.load()
        return image

    pixels = check_size(image.width, image.height, max_pixels)
    return Header(image.width, image.height, load, pixels)


def _jpeg(data: bytearray, max_pixels: int, scaled_to: tuple[int, int] | None) -> Header:
    parts = jpeg.parts(data)
    image = jpeg.header(parts)
    pixels = check_size(image.width, image.height, max_pixels)
    if scaled_to and parts.scalable:
        height, width = scaled_to
        image.draft(None, (height, width) if orientation(image) > 4 else (width, height))
    return Header(image.width, image.height, partial(jpeg.load, image, parts), pixels)


def _raw(stream: BinaryIO, kind: str, max_pixels: int, scaled_to: tuple[int, int] | None) -> Header:
    preview, flip = raw.preview(stream, kind)
    header = _jpeg(bytearray(preview), max_pixels, scaled_to)

    def load() -> Image.Image:
        image = header.load()
        if orientation(image) == 1:
            image.getexif()[_ORIENTATION] = flip
        return image

    return header._replace(load=load)


def _tiff(stream: BinaryIO, max_pixels: int, scaled_to: tuple[int, int] | None) -> Header:
    if kind := raw.tiff_kind(stream):
        return _raw(stream, kind, max_pixels, scaled_to)
    page = first_page(stream)
    pixels = check_size(page.width, page.height, max_pixels)
    most = max(_USUAL_BYTES * max_pixels, _MOST_BYTES * pixels)
    if page.decoded_bytes > most:  # huge tiles, or thousands of samples a pixel
        raise ImageError("too_large", f"the TIFF's samples take {page.decoded_bytes} bytes (--max-pixels)")
    if page.decoded_bytes > _MOST_BYTES * pixels:
        pixels = max(pixels, -(-page.decoded_bytes // _USUAL_BYTES))
    return Header(page.width, page.height, partial(tiff.decoded, page), pixels)


def _by_pillow(stream: BinaryIO, prefix: bytes, max_pixels: int) -> Header:
    if prefix[4:8] == b"ftyp" and (b"avif" in prefix or b"avis" in prefix):
        stream = BytesIO(isobmff.without_notes(_whole(stream)))
    elif prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIF_BRANDS:
        _allow_heif()
    elif prefix[4:8] == b"ftyp" and prefix[8:12] in _OTHER_HEIF_BRANDS:
        raise ImageError("unsupported", f"HEIF of the brand {prefix[8:12].decode()} is not opened")
    Image.init()
    try:
        image = Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        raise _unidentified(stream, prefix) from None
    header = _of(image, max_pixels)
    check = _CHECKS.get(image.format or "")
    if check:
        check(_whole(stream))
    if image.format == "PCX":
        pcx.check_palette(image, _whole(stream))
    if image.format == "WEBP":
        return header._replace(load=partial(coded_data.load_webp, image, _whole(stream)))
    return header


def _allow_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        hint = "HEIC pictures need the extra `heif`: pip install 'beitcli[heif]'"
        raise ImageError("unsupported", hint) from None
    pillow_heif.register_heif_opener()


def _unidentified(stream: BinaryIO, prefix: bytes) -> ImageError:
    """The reason that `Image.open` hides, from the decoder that accepts the first bytes."""
    for name in FORMATS:
        driver, accepts = Image.OPEN.get(name, (None, None))
        try:
            accepted = accepts and accepts(prefix) is True
        except (IndexError, struct.error):  # fewer bytes than a signature has
            continue
        if driver and accepted:
            stream.seek(0)
            driver(stream, "")  # raises the error that `Image.open` hid
            return ImageError("corrupt", f"begins as {name} but its header cannot be read")
    return ImageError("not_an_image", "not a picture in any known format")
