"""PNG: damaged pixels are detected by their checksum, broken notes are ignored, and relevant ones still read."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from beitcli.errors import ImageError
from beitcli.inputs.decode import Decoding, decode

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(io.BytesIO(data), Decoding(seconds=0), nullcontext()))


def image(mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def png(mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    image(mode).save(stream, "PNG", **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunk(data: bytes, note: bytes, behind: bytes = b"IHDR") -> bytes:
    """The same PNG with a chunk after the header, or before the end."""
    place = 33 if behind == b"IHDR" else data.index(b"IEND") - 4
    return data[:place] + note + data[place:]


BOMB = zlib.compress(bytes(300_000_000), 1)

NOTES = {
    "text of 3 MB": chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    "packed text of 300 MB": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "packed XMP of 300 MB": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 300_000_000, 1)),
    "packed profile of 300 MB": chunk(b"iCCP", b"icc\0\0" + BOMB),
    "profile, empty": chunk(b"iCCP", b""),
    "profile, cut": chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"profile" * 99)[:20]),
    "profile of an unknown method": chunk(b"iCCP", b"icc\0\7abc"),
    "resolution, short": chunk(b"pHYs", b"\0\0"),
    "gamma, short": chunk(b"gAMA", b"\0"),
    "chromaticities, short": chunk(b"cHRM", b"\0\0\0"),
    "time, short": chunk(b"tIME", b"\0"),
    "text with a wrong checksum": chunk(b"tEXt", b"Comment\0hello", checksum=1),
    "gamma with a wrong checksum": chunk(b"gAMA", b"\0\0\xb1\x8f", checksum=1),
    "EXIF, noise": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "XMP without its parts": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1"),
    "EXIF as text, not hexadecimal": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nzz!!"),
    "animation without frames": chunk(b"acTL", struct.pack(">II", 9, 0)),
}


@pytest.mark.parametrize("behind", [b"IHDR", b"IDAT"], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_broken_notes_are_ignored(note: bytes, behind: bytes) -> None:
    data = png()
    began = time.process_time()
    np.testing.assert_array_equal(pixels(with_chunk(data, note, behind)), np.asarray(image()))
    assert time.process_time() - began < 1


def test_a_cut_chunk_after_the_pixels_is_ignored() -> None:
    data = png()
    end = data.index(b"IEND") - 4
    np.testing.assert_array_equal(
        pixels(data[:end] + chunk(b"tEXt", b"Comment\0" + b"x" * 99)[:50]), np.asarray(image())
    )


@pytest.mark.parametrize("damage", ["flip", "zeros", "noise"])
@pytest.mark.parametrize("level", [0, 6], ids=["stored", "packed"])
def test_damaged_pixels_are_an_error(damage: str, level: int) -> None:
    data = bytearray(png(compress_level=level))
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    rng = np.random.default_rng(4)
    for share in (0.1, 0.5, 0.99):
        place = start + int(share * (end - start))
        broken = bytearray(data)
        if damage == "flip":
            broken[place] ^= 1
        else:
            size = min(300, end - place)
            broken[place : place + size] = bytes(size) if damage == "zeros" else rng.bytes(size)
        with pytest.raises(ImageError) as caught:
            pixels(bytes(broken))
        assert caught.value.code == "corrupt"


@pytest.mark.parametrize("kind", [b"PLTE", b"tRNS"])
def test_chunks_that_determine_colours_must_be_whole(kind: bytes) -> None:
    data = bytearray(png("P", transparency=3))
    assert pixels(bytes(data)).shape == (40, 60, 3)
    data[data.index(kind) + 4] ^= 255
    with pytest.raises(ImageError, match=kind.decode()):
        pixels(bytes(data))


def exif(orientation: int) -> bytes:
    notes = Image.Exif()
    notes[0x0112] = orientation
    return notes.tobytes()


def hexadecimal(orientation: int) -> bytes:
    """EXIF as ImageMagick writes it."""
    data = exif(orientation)
    return b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(data), data.hex().encode())


SIDE_UP: dict[str, Callable[[], bytes]] = {
    "EXIF": lambda: png(exif=exif(6)),
    "EXIF behind the pixels": lambda: with_chunk(png(), chunk(b"eXIf", exif(6)[6:]), b"IDAT"),
    "EXIF as text": lambda: with_chunk(png(), chunk(b"tEXt", hexadecimal(6))),
    "EXIF as packed text": lambda: with_chunk(
        png(), chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexadecimal(6).split(b"\0", 1)[1]))
    ),
    "XMP": lambda: png(pnginfo=xmp(packed=False)),
    "packed XMP": lambda: png(pnginfo=xmp(packed=True)),
}


def xmp(packed: bool) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6"/>', zip=packed)
    return info


@pytest.mark.parametrize("make", SIDE_UP.values(), ids=SIDE_UP)
def test_notes_still_give_the_orientation(make: Callable[[], bytes]) -> None:
    upright = np.asarray(image().transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(pixels(make()), upright)


def test_an_animation_is_its_first_frame() -> None:
    data = png(save_all=True, append_images=[Image.new("RGB", (60, 40), "red")])
    np.testing.assert_array_equal(pixels(data), np.asarray(image()))


def test_a_png_inside_an_icon_is_checked_too() -> None:
    stream = io.BytesIO()
    image("RGBA").resize((64, 64)).save(stream, "ICO", sizes=[(64, 64)])
    data = bytearray(stream.getvalue())
    assert pixels(bytes(data)).shape == (64, 64, 3)
    data[data.index(b"IDAT") + 2000] ^= 1
    with pytest.raises(ImageError) as caught:
        pixels(bytes(data))
    assert caught.value.code == "corrupt"


def test_a_png_without_its_palette_is_corrupt() -> None:
    data = png("P")
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    with pytest.raises(ImageError, match="palette") as caught:
        pixels(data[:start] + data[end:])
    assert caught.value.code == "corrupt"


def test_a_png_that_ends_before_its_image_is_truncated() -> None:
    data = png()
    with pytest.raises(ImageError) as caught:
        pixels(data[: data.index(b"IDAT") - 2])
    assert caught.value.code == "truncated"
