"""TIFF -> an image of 8 bits a channel.

Pillow (libtiff) decompresses and arranges the tiles; the bytes are interpreted here, by the file's own tags, because
Pillow silently misreads some layouts. For that each plane of the page is put into a plain TIFF in memory whose samples
are single bytes: so neither the byte order nor broken notes of the file reach Pillow.
"""

import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from PIL import Image, JpegImagePlugin, TiffImagePlugin

from beitcli.errors import ImageError
from beitcli.inputs.decoders.jpeg import check_stream
from beitcli.inputs.decoders.process_settings import limit_pixels
from beitcli.inputs.decoders.samples import Samples, to_8_bits
from beitcli.inputs.decoders.tiff_layout import COLOURS, COMPRESSIONS, FAX, JPEG, OLD_JPEG, Page
from beitcli.inputs.decoders.tiff_strips import CHECKED, check_fax, inflated
from beitcli.inputs.decoders.tiff_tags import read_at

_ORIENTATION = 274
_SAVED_AS = {2: "tiff_ccitt", 3: "group3", 4: "group4", 5: "tiff_lzw", 7: "jpeg", 8: "tiff_adobe_deflate"}
_SAVED_AS |= {32773: "packbits", 32946: "tiff_deflate", 34925: "lzma", 50000: "zstd"}
Tags: TypeAlias = dict[int, tuple[int, ...]]
_LONGS = (256, 257, 273, 278, 279, 292, 293, 322, 323, 324, 325)
_DTYPES = {"unsigned": "u", "signed": "i", "float": "f"}


def decoded(page: Page) -> Image.Image:
    """The page as stored, over white, in L, RGB, CMYK, LAB or YCbCr, with its orientation in its EXIF."""
    if page.compression in (JPEG, OLD_JPEG):
        for data in jpeg_streams(page):
            check_stream(data)
    image = _old_jpeg(page) if page.compression == OLD_JPEG else _image(page, _samples(page))
    orientation = page.directory.note(_ORIENTATION, 1)
    if 1 < orientation <= 8:
        image.getexif()[_ORIENTATION] = orientation
    return image


def jpeg_streams(page: Page) -> Iterator[bytes]:
    """Every strip or tile of a TIFF of JPEG as a separate JPEG file with its tables."""
    if page.compression == OLD_JPEG:
        yield _old_jpeg_stream(page)
    elif page.compression == JPEG:
        for plane in page.planes:
            yield from _jpeg_parts(page, plane)


def _jpeg_parts(page: Page, plane: int) -> Iterator[bytes]:
    tables = bytes(page.directory.integers(347, ()))
    if tables[:2] == b"\xff\xd8":
        tables = tables.removesuffix(b"\xff\xd9")
    for index, data in enumerate(_data(page, plane)):
        whole = tables + data[2:] if tables and data[:2] == b"\xff\xd8" else data
        frame = _frame(whole)
        rows = {page.rows_of(index), page.part_height} if page.tiled or index == page.down - 1 else {page.part_height}
        if (frame.width, frame.samples) != (page.part_width, page.samples if page.planar == 1 else 1):
            raise ImageError("corrupt", f"the TIFF's JPEG {index + 1} is of another size or kind than its tags say")
        if frame.height not in rows:
            raise ImageError("truncated", f"the TIFF's JPEG {index + 1} has {frame.height} rows")
        yield whole


class _Frame(NamedTuple):
    width: int
    height: int
    samples: int
    sampling: tuple[int, int]


def _frame(data: bytes) -> _Frame:
    """A JPEG's frame header; raises ImageError where there is none, or it is not of 8 bits."""
    place = 2 if data.startswith(b"\xff\xd8") else len(data)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, (size,) = data[place + 1], struct.unpack_from(">H", data, place + 2)
        if marker == 0xFF:
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and place + 12 <= len(data):
            bits, height, width, samples, _, factors = struct.unpack_from(">BHHBBB", data, place + 4)
            if bits != 8:
                raise ImageError("unsupported", f"TIFF of JPEG of {bits} bits is not opened")
            return _Frame(width, height, samples, (factors >> 4, factors & 15))
        place += 2 + size
    raise ImageError("corrupt", "the TIFF's JPEG has no frame header")


def _old_jpeg_stream(page: Page) -> bytes:
    """The JPEG file inside an old-style TIFF; `unsupported` where there are only pieces of one."""
    parts = page.parts()
    begin = page.directory.integer(513, 0) or parts[0].offset
    end = max(part.offset + part.size for part in parts)
    if size := page.directory.integer(514, 0):
        end = max(end, begin + size)
    data = read_at(page.stream, begin, max(end - begin, 0), "JPEG")
    if not data.startswith(b"\xff\xd8") or b"\xff\xda" not in data:
        raise ImageError("unsupported", "TIFF of old-style JPEG in pieces is not opened")
    frame = _frame(data)
    if (frame.width, frame.height) != (page.width, page.height):
        raise ImageError("unsupported", "TIFF of old-style JPEG whose strips are JPEGs is not opened")
    return data


def _old_jpeg(page: Page) -> Image.Image:
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(_old_jpeg_stream(page)))
    return Image.fromarray(np.asarray(image.convert("RGB")))  # without the EXIF of the JPEG inside


def _data(page: Page, plane: int) -> Iterator[bytes]:
    for number, part in enumerate(page.parts(plane), 1):
        yield read_at(page.stream, part.offset, part.size, f"part {number}")


def _samples(page: Page) -> Samples:
    """The samples, (height, width, samples); of separate planes only those of the image."""
    if page.planar == 1:
        return _plane(page, 0, page.samples)
    return np.concatenate([_plane(page, plane, 1) for plane in page.planes], axis=2)


def _plane(page: Page, plane: int, samples: int) -> Samples:
    """Every sample of one plane, (height, width, samples)."""
    if page.compression == JPEG:
        return _jpeg_plane(page, plane, samples)
    data = [*_data(page, plane)]
    tags: Tags = {262: (1,), 266: (2 if page.mirrored else 1,)}
    if page.compression in FAX:
        options: Tags = {tag: page.directory.integers(tag) for tag in (292, 293) if tag in page.directory.entries}
        if page.compression == 2:  # it has no end code: libtiff detects a cut, but reads zeros as white lines
            data = [part.rstrip(b"\0") + b"\0\0" for part in data]
        carrier = _carrier(page, data, page.width, page.part_width, {**tags, 258: (1,), **options})
        bits = _loaded(page, carrier)
        for number, part in enumerate(data):
            check_fax(part, page.compression, page.mirrored, bits[number * page.part_height :][: page.rows_of(number)])
        return bits.astype(np.uint8)[..., None]
    if page.compression in CHECKED:
        if page.mirrored:
            raise ImageError("unsupported", f"TIFF of mirrored {COMPRESSIONS[page.compression]} data is not opened")
        sizes = [page.row_bytes * page.rows_of(number // page.across) for number in range(len(data))]
        data = [inflated(part, size, page.compression) for part, size in zip(data, sizes, strict=True)]
        tags[259] = (1,)
    if page.compression in (1, *CHECKED) and not page.tiled and not page.mirrored:
        rows = np.frombuffer(data[0] if len(data) == 1 else b"".join(data), np.uint8).reshape(page.height, -1)
    else:
        carrier = _carrier(page, data, page.across * page.row_bytes, page.row_bytes, {**tags, 258: (8,)})
        rows = _loaded(page, carrier)
    if page.bits < 8 or page.bits == 12:
        return _unpacked(rows, page.bits)[:, : page.width * samples].reshape(page.height, page.width, samples)
    tiles = rows.reshape(page.height, page.across, page.row_bytes)
    values = _numbers(page, tiles, samples)
    return values.reshape(page.height, page.across * page.part_width, samples)[:, : page.width]


def _numbers(page: Page, tiles: Samples, samples: int) -> Samples:
    """The samples of rows of tiles (height, across, bytes of a row), with the differences added up."""
    size, kind = page.bits // 8, _DTYPES[page.kind]
    height, across, row = tiles.shape
    if page.predictor == 3:  # the samples' highest bytes first, then the next, each as a difference
        steps = tiles.reshape(height, across, row // samples, samples).copy()
        np.add.accumulate(steps, axis=2, out=steps)
        planes = steps.reshape(height, across, size, row // size)
        return np.ascontiguousarray(planes.swapaxes(2, 3)).view(f">{kind}{size}").astype(f"{kind}{size}")
    values = tiles.view(f"{page.directory.order}{kind}{size}")
    if page.predictor == 2:
        steps = values.view(f"{page.directory.order}u{size}").astype(f"u{size}")
        steps = steps.reshape(height, across, page.part_width, samples)
        np.add.accumulate(steps, axis=2, out=steps)
        return steps.view(f"{kind}{size}")
    return values.astype(f"{kind}{size}", copy=False)


def _unpacked(rows: Samples, bits: int) -> Samples:
    """Samples of fewer than 8 bits, or of 12, from rows of bytes; the highest bits come first."""
    if bits < 8:
        shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
        small: Samples = (rows[:, :, None] >> shifts) & ((1 << bits) - 1)
        return small.reshape(len(rows), -1)
    wide = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3))).reshape(len(rows), -1, 3).astype(np.uint16)
    pairs = wide[..., 0] << 4 | wide[..., 1] >> 4, (wide[..., 1] & 15) << 8 | wide[..., 2]
    return np.stack(pairs, axis=2).reshape(len(rows), -1)


def _jpeg_plane(page: Page, plane: int, samples: int) -> Samples:
    streams = [*_jpeg_parts(page, plane)]
    photometric = {1: 1, 3: 6 if page.photometric == 6 else 2, 4: 5}.get(samples)
    if photometric is None:
        raise ImageError("unsupported", f"TIFF of JPEG of {samples} samples is not opened")
    tags: Tags = {258: (8,) * samples, 262: (photometric,), 277: (samples,)}
    if photometric == 6:
        tags[530] = _frame(streams[0]).sampling
    pixels = _loaded(page, _carrier(page, streams, page.width, page.part_width, tags))
    return pixels.reshape(page.height, page.width, samples)


def _carrier(page: Page, data: Sequence[bytes], width: int, part_width: int, tags: Tags) -> BinaryIO:
    """A TIFF in memory of only these strips or tiles and these tags."""
    sizes = [len(part) for part in data]
    *offsets, end = itertools.accumulate(sizes, initial=8)
    end += end % 2
    if end + 16 * len(data) + 1000 >= 1 << 32:
        raise ImageError("unsupported", "TIFF of more than 4 GB of compressed data is not opened")
    places, counts = (324, 325) if page.tiled else (273, 279)
    shape = {322: (part_width,), 323: (page.part_height,)} if page.tiled else {278: (page.part_height,)}
    tags = {256: (width,), 257: (page.height,), 259: (page.compression,), 277: (1,), **tags, **shape}
    tags |= {places: tuple(offsets), counts: tuple(sizes)}
    beyond, directory = end + 2 + 12 * len(tags) + 4, struct.pack("<H", len(tags))
    values = b""
    for tag, numbers in sorted(tags.items()):
        code, kind = ("I", 4) if tag in _LONGS else ("H", 3)
        content = struct.pack(f"<{len(numbers)}{code}", *numbers).ljust(4, b"\0")
        if len(content) > 4:
            content, values = struct.pack("<I", beyond + len(values)), values + content
        directory += struct.pack("<HHI", tag, kind, len(numbers)) + content
    body = b"".join([b"II*\0", struct.pack("<I", end), *data]).ljust(end, b"\0")
    return io.BytesIO(body + directory + b"\0" * 4 + values)


def _loaded(page: Page, carrier: BinaryIO) -> Samples:
    """The pixels of a TIFF made by `_carrier`, as Pillow decodes them."""
    limit_pixels(8 * page.decoded_bytes)  # the page itself was checked; here a pixel is a byte, or a bit
    try:
        return np.asarray(TiffImagePlugin.TiffImageFile(carrier))
    except (OSError, SyntaxError, ValueError) as error:
        name = COMPRESSIONS[page.compression]
        if not _built_in(page.compression):
            raise ImageError("unsupported", f"TIFF with {name} compression is not opened by this Pillow") from error
        raise ImageError("corrupt", f"the TIFF's {name} data is damaged") from error


def _built_in(compression: int) -> bool:
    """True if Pillow's libtiff has this compression, tested by writing with it."""
    try:
        mode = "1" if compression in FAX else "L"
        Image.new(mode, (8, 8)).save(io.BytesIO(), "TIFF", compression=_SAVED_AS.get(compression))
    except (OSError, ValueError, RuntimeError):
        return False
    return True


def _image(page: Page, samples: Samples) -> Image.Image:
    """The samples in the page's colours, over white."""
    count = COLOURS[page.photometric]
    colours = samples[..., :count]
    if page.photometric == 5 and page.bits == 16:  # multiplied before they lose their lower bits
        light = 65535 - colours.astype(np.uint32)
        colours = (light[..., :3] * light[..., 3:] // 65535).astype(np.uint16)
    elif page.alpha is None or page.bits == 8:
        image = _colours(page, colours)
        if page.alpha is None:
            return image
        colours = np.asarray(image.convert("RGB"))
    if page.alpha is not None:
        alpha = samples[..., count if page.planar == 2 else page.alpha]
        colours = _over_white(colours, alpha[..., None], page.premultiplied)
    levels = to_8_bits(colours)
    return Image.fromarray(np.ascontiguousarray(levels if levels.shape[2] == 3 else levels[..., 0]))


def _over_white(colours: Samples, alpha: Samples, premultiplied: bool) -> Samples:
    """Unsigned samples of 8 or 16 bits, blended over white by their opacity."""
    most = np.iinfo(colours.dtype).max
    wide, opaque = colours.astype(np.uint32), alpha.astype(np.uint32)
    if premultiplied:
        mixed = np.minimum(wide + (most - opaque), most)
    else:
        mixed = (wide * opaque + most * (most - opaque) + most // 2) // most
    result: Samples = mixed.astype(colours.dtype)
    return result


def _colours(page: Page, samples: Samples) -> Image.Image:
    size = page.width, page.height
    if page.photometric == 3:
        return Image.fromarray(_palette(page)[samples[..., 0]])
    if page.photometric == 6 and page.compression == JPEG:  # libjpeg made RGB of it
        return Image.fromarray(np.ascontiguousarray(samples))
    levels = _levels(page, samples)
    if page.photometric == 0:
        levels = 255 - levels
    if page.photometric == 8:
        return Image.frombytes("LAB", size, levels.tobytes(), "raw", "LAB")
    if page.photometric in (5, 6):
        return Image.frombytes({5: "CMYK", 6: "YCbCr"}[page.photometric], size, levels.tobytes())
    return Image.fromarray(np.ascontiguousarray(levels if page.photometric == 2 else levels[..., 0]))


def _levels(page: Page, samples: Samples) -> Samples:
    """The samples in 8 bits."""
    if page.bits < 8 or page.bits == 12:
        most = (1 << page.bits) - 1
        return ((samples.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    return to_8_bits(samples)


def _palette(page: Page) -> Samples:
    """The colours of a palette, (entries, 3)."""
    words = np.array(page.directory.integers(320, ()), np.uint16)
    if len(words) < 3 << page.bits:
        raise ImageError("corrupt", "the TIFF's palette lacks colours")
    colours = words[: 3 << page.bits].reshape(3, -1).T
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)  # some writers store bytes as words
