"""Real image files of every kind, whole and broken: the pixels they give, or the code of their failure."""

import io
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from beitcli.errors import ERROR_CODES, ImageError
from beitcli.inputs import decode as decoding
from beitcli.inputs.decode import LARGE_PIXELS, Decoding, coded_errors, opened
from beitcli.records import Fetched, Source
from tests.conftest import unprivileged

UNTIMED = Decoding(seconds=0)
WHITE, BLACK, RED, GREEN, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
NAN, INFINITY = float("nan"), float("inf")

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")


def decode(item: Source | Fetched, limits: Decoding, turn: AbstractContextManager[object]) -> Image.Image:
    with coded_errors(), opened(item) as stream:
        return decoding.decode(stream, limits, turn)


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., Image.Image]:
    """The image that `decode` gives for a file with these bytes."""

    def run(data: bytes, limits: Decoding = UNTIMED, name: str = "image") -> Image.Image:
        path = tmp_path / name
        path.write_bytes(data)
        image = decode(Source(str(path)), limits, nullcontext())
        assert image.mode == "RGB"
        return image

    return run


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def flat(colour: float | tuple[int, ...] | str, mode: str = "RGB", size: tuple[int, int] = (32, 16)) -> Image.Image:
    return Image.new(mode, size, colour)


def noise(width: int = 60, height: int = 40, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def png(
    data: bytes,
    size: tuple[int, int],
    depth: int,
    colour_type: int,
    *chunks: tuple[bytes, bytes],
) -> bytes:
    """A PNG of one or no row: colour type 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    body = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in body
    )


def tiff(
    order: str, code: str, values: Sequence[float], samples: int = 1, photometric: int = 1, alpha: int = 0
) -> bytes:
    """An uncompressed TIFF of one row, samples packed by a `struct` format; `alpha` 1 is premultiplied, 2 is not."""
    data = struct.pack(f"{order}{len(values)}{code}", *values)
    tags = {
        256: ("I", [len(values) // samples]),
        257: ("I", [1]),
        258: ("H", [8 * struct.calcsize(f"{order}{code}")] * samples),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [8]),
        277: ("H", [samples]),
        278: ("I", [1]),
        279: ("I", [len(data)]),
        338: ("H", [alpha] if alpha else []),
        339: ("H", [{"f": 3, "d": 3, "h": 2, "i": 2}.get(code, 1)] * samples),
    }
    tags = {tag: entry for tag, entry in tags.items() if entry[1]}
    data += b"\0" * (len(data) % 2)
    directory, beyond = struct.pack(f"{order}H", len(tags)), b""
    for tag, (kind, entries) in tags.items():
        content = struct.pack(f"{order}{len(entries)}{kind}", *entries).ljust(4, b"\0")
        if len(content) > 4:
            place = 8 + len(data) + 2 + 12 * len(tags) + 4 + len(beyond)
            content, beyond = struct.pack(f"{order}I", place), beyond + content
        directory += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(entries)) + content
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    return start + data + directory + b"\0" * 4 + beyond


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


def greys(*values: int) -> list[tuple[int, int, int]]:
    return [(value, value, value) for value in values]


PALETTE = (b"PLTE", bytes((*RED, *GREEN, *BLUE, 9, 9, 9)))
GREY_16 = [0, 257, 1000, 32768, 65407, 65535]
GREY_8 = greys(0, 1, 4, 128, 255, 255)
RGB_16 = [0, 257, 32768, 65535, 1000, 60000]
RGB_8 = [(0, 1, 128), (255, 4, 233)]
FULL_16 = 65535

SAMPLES: dict[str, tuple[bytes, list[tuple[int, int, int]], int]] = {
    "PNG, 16-bit grey": (png(words(*GREY_16), (6, 1), 16, 0), GREY_8, 0),
    "TIFF, 16-bit grey, little-endian": (tiff("<", "H", GREY_16), GREY_8, 0),
    "TIFF, 16-bit grey, big-endian": (tiff(">", "H", GREY_16), GREY_8, 0),
    "PNG, 16-bit RGB": (png(words(*RGB_16), (2, 1), 16, 2), RGB_8, 1),
    "TIFF, 16-bit RGB, little-endian": (tiff("<", "H", RGB_16, 3, 2), RGB_8, 1),
    "TIFF, 16-bit RGB, big-endian": (tiff(">", "H", RGB_16, 3, 2), RGB_8, 1),
    "PGM, 16-bit grey": (b"P5 6 1 65535\n" + words(*GREY_16), GREY_8, 1),
    "TIFF, 16-bit signed": (tiff("<", "h", [-32768, 0, 32767]), greys(0, 128, 255), 0),
    "TIFF, 32-bit within 16": (tiff("<", "i", GREY_16), GREY_8, 0),
    "TIFF, 32-bit within 16, big-endian": (tiff(">", "i", GREY_16), GREY_8, 0),
    "TIFF, 32-bit within 16, not spanning it": (tiff("<", "i", [2570, 5140]), greys(10, 20), 0),
    "TIFF, 32-bit in the upper half of 16": (tiff("<", "i", [32768, 65535]), greys(128, 255), 0),
    "TIFF, 32-bit from its range": (tiff("<", "i", [1000, 66000, 131000]), greys(0, 128, 255), 0),
    "TIFF, 32-bit one above 16": (tiff("<", "i", [65536 // 2, 65536]), greys(0, 255), 0),
    "TIFF, 32-bit below zero": (tiff(">", "i", [-10, 0, 10]), greys(0, 128, 255), 1),
    "TIFF, 32-bit at its limits": (tiff("<", "i", [-(2**31), 0, 2**31 - 1]), greys(0, 128, 255), 1),
    "TIFF, 32-bit unsigned": (tiff("<", "I", [0, 2**31, 2**32 - 1]), greys(0, 128, 255), 1),
    "TIFF, floats in 0..1": (tiff("<", "f", [0, 0.25, 0.5, 1]), greys(0, 64, 128, 255), 0),
    "TIFF, floats in 0..1, big-endian": (tiff(">", "f", [0, 0.25, 0.5, 1]), greys(0, 64, 128, 255), 0),
    "TIFF, floats that do not span 0..1": (tiff("<", "f", [0.25, 0.5, 0.75]), greys(64, 128, 191), 0),
    "TIFF, floats above 1": (tiff("<", "f", [1, 50.5, 100]), greys(0, 128, 255), 1),
    "TIFF, floats below 0": (tiff("<", "f", [-1, 0, 1]), greys(0, 128, 255), 1),
    "TIFF, floats at their limits": (tiff("<", "f", [-3.4e38, 0, 3.4e38]), greys(0, 128, 255), 1),
    "TIFF, floats in 0..1 and none": (tiff("<", "f", [NAN, 0.5, INFINITY, -INFINITY, 1]), greys(0, 128, 0, 0, 255), 0),
    "TIFF, floats beyond 0..1 and none": (tiff("<", "f", [NAN, -10, INFINITY, 90]), greys(0, 0, 0, 255), 0),
    "TIFF, no finite float": (tiff("<", "f", [NAN, INFINITY, -INFINITY]), greys(0, 0, 0), 0),
    "TIFF, floats all alike": (tiff("<", "f", [7, 7]), greys(0, 0), 0),
    "PFM, floats": (b"Pf 2 1 -1.0\n" + struct.pack("<2f", 0.5, 1), greys(128, 255), 0),
    "PNG, palette": (png(bytes([2, 0, 1, 3]), (4, 1), 8, 3, PALETTE), [BLUE, RED, GREEN, (9, 9, 9)], 0),
    "PNG, palette with alpha": (
        png(bytes([0, 1, 2]), (3, 1), 8, 3, PALETTE, (b"tRNS", bytes([0, 128]))),
        [WHITE, (127, 255, 127), BLUE],
        1,
    ),
    "PNG, palette with one clear colour": (
        png(bytes([0, 1, 2]), (3, 1), 8, 3, PALETTE, (b"tRNS", bytes([255, 0]))),
        [RED, WHITE, BLUE],
        0,
    ),
    "PNG, grey and alpha": (png(bytes([0, 255, 0, 0, 0, 128, 9, 255]), (4, 1), 8, 4), greys(0, 255, 127, 9), 1),
    "PNG, RGBA": (
        png(bytes((*RED, 255, *RED, 0, *RED, 128, *GREEN, 1)), (4, 1), 8, 6),
        [RED, WHITE, (255, 127, 127), (254, 255, 254)],
        1,
    ),
    "PNG, RGBA without transparency": (png(bytes((*RED, 255, 1, 2, 3, 255)), (2, 1), 8, 6), [RED, (1, 2, 3)], 0),
    "PNG, 16-bit grey and alpha": (
        png(words(0, FULL_16, 0, 0, 0, 32768), (3, 1), 16, 4),
        greys(0, 255, 127),
        1,
    ),
    "PNG, 16-bit RGBA": (
        png(words(FULL_16, 0, 0, FULL_16, FULL_16, 0, 0, 0, FULL_16, 0, 0, 32768), (3, 1), 16, 6),
        [RED, WHITE, (255, 127, 127)],
        1,
    ),
    "TIFF, RGBA": (tiff("<", "B", [*RED, 255, *RED, 0, *RED, 128], 4, 2, 2), [RED, WHITE, (255, 127, 127)], 1),
    "TIFF, premultiplied RGBA": (
        tiff("<", "B", [*RED, 255, 0, 0, 0, 0, 128, 0, 0, 128], 4, 2, 1),
        [RED, WHITE, (255, 127, 127)],
        1,
    ),
    "TIFF, 16-bit RGBA": (
        tiff(">", "H", [FULL_16, 0, 0, FULL_16, FULL_16, 0, 0, 0], 4, 2, 2),
        [RED, WHITE],
        1,
    ),
    "PNG, one clear RGB": (
        png(bytes([1, 2, 3, 4, 5, 6]), (2, 1), 8, 2, (b"tRNS", words(1, 2, 3))),
        [WHITE, (4, 5, 6)],
        0,
    ),
    "PNG, one clear grey": (png(bytes([1, 2]), (2, 1), 8, 0, (b"tRNS", words(1))), greys(255, 2), 0),
    "PNG, one clear 16-bit grey": (png(words(256, 257), (2, 1), 16, 0, (b"tRNS", words(256))), greys(255, 1), 0),
    "PNG, clear black in 16 bits": (png(words(0, 257), (2, 1), 16, 0, (b"tRNS", words(0))), greys(255, 1), 0),
    "PNG, one clear 16-bit RGB": (
        png(words(0x1234, 0x2345, 0x3456, *RGB_16[3:]), (2, 1), 16, 2, (b"tRNS", words(0x1234, 0x2345, 0x3456))),
        [WHITE, RGB_8[1]],
        1,
    ),
    "PNG, one clear 4-bit grey": (png(bytes([0x12]), (2, 1), 4, 0, (b"tRNS", words(1))), greys(255, 34), 0),
    "PNG, one clear 2-bit grey": (png(bytes([0b00011000]), (3, 1), 2, 0, (b"tRNS", words(1))), greys(0, 255, 170), 0),
    "PNG, clear black in 1 bit": (png(bytes([0b10000000]), (2, 1), 1, 0, (b"tRNS", words(0))), greys(255, 255), 0),
    "PNG, 1-bit": (png(bytes([0b10100000]), (4, 1), 1, 0), greys(255, 0, 255, 0), 0),
    "PNG, 4-bit grey": (png(bytes([0x0F, 0x70]), (3, 1), 4, 0), greys(0, 255, 119), 0),
    "PBM, 1-bit": (b"P4 4 1\n" + bytes([0b10100000]), greys(0, 255, 0, 255), 0),
    "TIFF, white is 0": (tiff("<", "B", [0, 1, 255], 1, 0), greys(255, 254, 0), 0),
    "TIFF, CMYK": (
        tiff("<", "B", [0, 0, 0, 0, 255, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 255], 4, 5),
        [WHITE, (0, 255, 255), RED, BLACK],
        1,
    ),
    "TIFF, LAB": (
        tiff("<", "B", [255, 0, 0, 138, 81, 70, 137, 0, 0, 0, 0, 0], 3, 8),
        [WHITE, RED, (128, 128, 128), BLACK],
        6,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected", "tolerance"), SAMPLES.values(), ids=SAMPLES)
def test_samples_become_8_bit_rgb(
    decoded: Callable[..., Image.Image], data: bytes, expected: list[tuple[int, int, int]], tolerance: int
) -> None:
    image = decoded(data)
    assert image.size == (len(expected), 1)
    np.testing.assert_allclose(np.asarray(image)[0].astype(int), expected, rtol=0, atol=tolerance)


def ycck(colour: tuple[int, int, int, int]) -> bytes:
    """A JPEG as Photoshop writes it: CMYK inverted, and its first three channels stored as luma and chroma."""
    *inks, black = colour
    luma = [255 - value for value in flat(tuple(inks)).convert("YCbCr").getpixel((0, 0))]  # type: ignore[union-attr]
    data = encoded(flat((*luma, black), "CMYK"), "JPEG", quality=100)
    marker = data.index(b"Adobe")
    return data[: marker + 11] + b"\2" + data[marker + 12 :]


def gif_over(colour: tuple[int, int, int], clear: bool) -> bytes:
    image = flat(1, "P")
    image.putpalette([*BLUE, *colour])
    return encoded(image, "GIF", **({"transparency": 1} if clear else {}))


def heif(image: Image.Image, **options: object) -> bytes:
    pytest.importorskip("pillow_heif").register_heif_opener()
    return encoded(image, "HEIF", **options)


FLATS: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "CMYK JPEG": (lambda: encoded(flat((0, 255, 255, 0), "CMYK"), "JPEG", quality=100), RED),
    "CMYK JPEG in luma and chroma": (lambda: ycck((0, 255, 255, 0)), RED),
    "dark CMYK JPEG in luma and chroma": (lambda: ycck((0, 255, 0, 128)), (127, 0, 127)),
    "grey JPEG": (lambda: encoded(flat(77, "L"), "JPEG", quality=100), (77, 77, 77)),
    "GIF": (lambda: gif_over(GREEN, clear=False), GREEN),
    "clear GIF": (lambda: gif_over(GREEN, clear=True), WHITE),
    "animated GIF": (lambda: encoded(flat(RED), "GIF", save_all=True, append_images=[flat(BLUE)]), RED),
    "animated WebP": (
        lambda: encoded(flat(RED), "WEBP", save_all=True, append_images=[flat(BLUE)], lossless=True),
        RED,
    ),
    "animated PNG": (lambda: encoded(flat(RED), "PNG", save_all=True, append_images=[flat(BLUE)]), RED),
    "clear WebP": (lambda: encoded(flat((*BLUE, 0), "RGBA"), "WEBP", lossless=True, exact=True), WHITE),
    "two pages of TIFF": (lambda: encoded(flat(RED), "TIFF", save_all=True, append_images=[flat(BLUE)]), RED),
    "MPO": (lambda: encoded(flat(GREEN), "MPO", save_all=True, append_images=[flat(BLUE)], quality=100), (0, 255, 1)),
    "JPEG 2000": (lambda: encoded(flat(RED), "JPEG2000"), RED),
    "BMP": (lambda: encoded(flat(RED), "BMP"), RED),
    "ICO of PNG": (lambda: encoded(flat(RED, "RGBA", (32, 32)), "ICO"), RED),
    "ICO of BMP": (lambda: encoded(flat(RED, "RGBA", (32, 32)), "ICO", bitmap_format="bmp"), RED),
    "clear ICO": (lambda: encoded(flat((*RED, 0), "RGBA", (32, 32)), "ICO"), WHITE),
    "TGA": (lambda: encoded(flat(RED), "TGA"), RED),
    "run-length TGA": (lambda: encoded(flat(RED), "TGA", compression="tga_rle"), RED),
    "HEIC": (lambda: heif(flat(GREEN), quality=-1), GREEN),
    "clear HEIC": (lambda: heif(flat((*RED, 0), "RGBA")), WHITE),
}


@pytest.mark.parametrize(("make", "colour"), FLATS.values(), ids=FLATS)
def test_one_colour_in_every_kind_of_file(
    decoded: Callable[..., Image.Image], make: Callable[[], bytes], colour: tuple[int, int, int]
) -> None:
    image = decoded(make())
    assert image.size in {(32, 16), (32, 32)}
    np.testing.assert_allclose(np.asarray(image).astype(int), np.full((image.height, 32, 3), colour), rtol=0, atol=3)


@needs_avif
@pytest.mark.parametrize("frames", [0, 1], ids=["still", "film"])
@pytest.mark.parametrize("brand", [b"", b"mif1"], ids=["own brand", "shared brand"])
@pytest.mark.parametrize("extra", [False, True], ids=["without the extra", "after a HEIC"])
def test_avif_needs_no_extra(
    decoded: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch, frames: int, brand: bytes, extra: bool
) -> None:
    if extra:
        pytest.importorskip("pillow_heif").register_heif_opener()
    else:
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    data = encoded(flat(RED), "AVIF", save_all=bool(frames), append_images=[flat(BLUE)] * frames)
    assert data[4:8] == b"ftyp"
    image = decoded(data[:8] + (brand or data[8:12]) + data[12:])
    np.testing.assert_allclose(np.asarray(image).astype(int), np.full((16, 32, 3), RED), rtol=0, atol=3)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_heic_without_the_extra_is_unsupported_with_a_hint(
    decoded: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch, brand: bytes
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError) as caught:
        decoded(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(500))
    assert caught.value.code == "unsupported"
    assert "pip install 'beitcli[heif]'" in str(caught.value)


EXACT = {
    "RGB JPEG": lambda: encoded(noise(), "JPEG"),
    "progressive JPEG": lambda: encoded(noise(), "JPEG", progressive=True, quality=40),
    "grey JPEG": lambda: encoded(noise(mode="L"), "JPEG"),
    "CMYK JPEG": lambda: encoded(noise(mode="CMYK"), "JPEG"),
    "RGB PNG": lambda: encoded(noise(), "PNG"),
    "grey PNG": lambda: encoded(noise(mode="L"), "PNG"),
    "opaque RGBA PNG": lambda: encoded(noise(mode="RGBA"), "PNG"),
    "palette PNG": lambda: encoded(noise(mode="P"), "PNG"),
    "1-bit PNG": lambda: encoded(noise(mode="1"), "PNG"),
    "lossy WebP": lambda: encoded(noise(), "WEBP"),
    "RGB TIFF": lambda: encoded(noise(), "TIFF", compression="tiff_lzw"),
    "BMP": lambda: encoded(noise(), "BMP"),
    "TGA": lambda: encoded(noise(), "TGA"),
    "ICO": lambda: encoded(noise(64, 64, "RGBA"), "ICO"),
    "small ICO of BMP": lambda: encoded(noise(16, 16, "RGBA"), "ICO", bitmap_format="bmp"),
    "large ICO of BMP": lambda: encoded(noise(128, 128, "RGBA"), "ICO", bitmap_format="bmp", sizes=[(128, 128)]),
}


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_an_opaque_image_gives_the_very_pixels_of_pillow(
    decoded: Callable[..., Image.Image], make: Callable[[], bytes]
) -> None:
    data = make()
    with Image.open(io.BytesIO(data)) as reference:
        np.testing.assert_array_equal(np.asarray(decoded(data)), np.asarray(reference.convert("RGB")))


UPRIGHT = np.repeat(np.repeat(np.array([[RED, GREEN, BLUE], [BLACK, WHITE, (200, 100, 0)]], np.uint8), 16, 0), 16, 1)
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: np.rot90(UPRIGHT),
    7: UPRIGHT[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(UPRIGHT, -1),
}
TURNED: dict[str, tuple[str, dict[str, object], int]] = {
    "JPEG": ("JPEG", {"quality": 100, "subsampling": 0}, 2),
    "PNG": ("PNG", {}, 0),
    "TIFF": ("TIFF", {}, 0),
    "compressed TIFF": ("TIFF", {"compression": "tiff_lzw"}, 0),
    "WebP": ("WEBP", {"lossless": True}, 0),
    "MPO": ("MPO", {"quality": 100, "subsampling": 0}, 2),
}


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def turned(orientation: int, file_format: str, **options: object) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    return encoded(image, file_format, exif=exif_of(orientation), **options)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("file_format", "options", "tolerance"), TURNED.values(), ids=TURNED)
def test_the_eight_orientations_give_the_same_upright_pixels(
    decoded: Callable[..., Image.Image],
    orientation: int,
    file_format: str,
    options: dict[str, object],
    tolerance: int,
) -> None:
    pixels = np.asarray(decoded(turned(orientation, file_format, **options)))
    np.testing.assert_array_equal(pixels, np.asarray(decoded(turned(1, file_format, **options))))
    np.testing.assert_allclose(pixels.astype(int), UPRIGHT, rtol=0, atol=tolerance)


@needs_avif
@pytest.mark.parametrize("orientation", STORED)
def test_avif_is_turned_once(decoded: Callable[..., Image.Image], orientation: int) -> None:
    pixels = np.asarray(decoded(turned(orientation, "AVIF", quality=100, subsampling="4:4:4")))
    np.testing.assert_allclose(pixels.astype(int), UPRIGHT, rtol=0, atol=8)


@pytest.mark.parametrize("orientation", STORED)
def test_heic_is_turned_once(decoded: Callable[..., Image.Image], orientation: int) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    pixels = np.asarray(decoded(turned(orientation, "HEIF", quality=-1)))
    np.testing.assert_allclose(pixels.astype(int), UPRIGHT, rtol=0, atol=8)


def test_16_bit_and_transparent_images_are_turned_too(decoded: Callable[..., Image.Image]) -> None:
    grey = Image.fromarray(np.array([[0, 2570], [5140, 7710], [10280, 12850]], np.uint16))
    pixels = np.asarray(decoded(encoded(grey, "PNG", exif=exif_of(6), transparency=5140)))[..., 0]
    np.testing.assert_array_equal(pixels, [[40, 255, 0], [50, 30, 10]])


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0abc" + bytes(5),
        exif_of(0),
        exif_of(9),
    ],
    ids=["no EXIF", "cut", "cut in the tags", "a word", "0", "9"],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_an_invalid_orientation_is_ignored(decoded: Callable[..., Image.Image], file_format: str, exif: bytes) -> None:
    plain, odd = encoded(noise(), file_format), encoded(noise(), file_format, exif=exif)
    assert exif[6:] in odd
    np.testing.assert_array_equal(np.asarray(decoded(odd)), np.asarray(decoded(plain)))


def cut(share: float, file_format: str, **options: object) -> bytes:
    data = encoded(noise(), file_format, **options)
    return data[: int(len(data) * share)]


def declared(width: int, height: int) -> bytes:
    return png(b"", (width, height), 8, 2)


def ico_of(image: bytes) -> bytes:
    return struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(image), 22) + image


CUT: list[tuple[str, dict[str, object], set[str]]] = [
    ("JPEG", {}, {"truncated"}),
    ("progressive JPEG", {"progressive": True}, {"truncated"}),
    ("PNG", {}, {"truncated"}),
    ("WebP", {}, {"truncated", "corrupt"}),
    ("GIF", {}, {"truncated", "corrupt"}),
    ("TIFF", {}, {"truncated", "corrupt"}),
    ("compressed TIFF", {"compression": "tiff_lzw"}, {"truncated", "corrupt"}),
    ("BMP", {}, {"truncated", "corrupt"}),
]
BROKEN: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    **{
        f"{name} cut at {share:.0%}": (partial(cut, share, name.split()[-1], **options), codes)
        for name, options, codes in CUT
        for share in (0.1, 0.5, 0.9, 0.98)
    },
    "empty": (lambda: b"", {"empty_file"}),
    "prose": (lambda: b"This is not an image.\n" * 50, {"not_an_image"}),
    "a word": (lambda: b"hello", {"not_an_image"}),
    "a byte": (lambda: b"x", {"not_an_image"}),
    "a line end": (lambda: b"\n", {"not_an_image"}),
    "a page": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", {"not_an_image"}),
    "JSON": (lambda: b'{"error": "not found"}', {"not_an_image"}),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', {"not_an_image"}),
    "ZIP": (lambda: b"PK\3\4\x14" + bytes(200), {"not_an_image"}),
    "zeros": (lambda: bytes(2000), {"not_an_image"}),
    "noise": (lambda: random.Random(3).randbytes(2000), {"not_an_image"}),
    "WAV": (lambda: b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0" + bytes(200), {"not_an_image"}),
    "MP4": (lambda: b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(200), {"not_an_image"}),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", {"unsupported"}),
    "EPS with preview": (lambda: b"\xc5\xd0\xd3\xc6" + bytes(60), {"unsupported"}),
    "PDF": (lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", {"unsupported"}),
    "FITS": (lambda: b"SIMPLE  =                    T".ljust(2880), {"unsupported"}),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(90), {"unsupported"}),
    "GRIB": (lambda: b"GRIB\0\0\0\1" + bytes(90), {"unsupported"}),
    "BUFR": (lambda: b"BUFR\0\0\0\4" + bytes(90), {"unsupported"}),
    "MPEG": (lambda: b"\0\0\1\xb3\x16\0\xf0\x13" + bytes(90), {"unsupported"}),
    "MPEG that looks like TGA": (lambda: b"\0\0\1\xb3" + bytes([0] * 8 + [4, 0, 4, 0, 24] + [0] * 90), {"unsupported"}),
    "WMF": (lambda: b"\xd7\xcd\xc6\x9a\0\0" + bytes(90), {"unsupported"}),
    "EMF": (lambda: b"\1\0\0\0\x6c\0\0\0" + bytes(90), {"unsupported"}),
    "JPEG XL": (lambda: b"\xff\x0a\xfa\x1f\x50" + bytes(90), {"unsupported", "corrupt"}),
    "TIFF of colours that are unknown": (lambda: tiff("<", "B", [0, 1], photometric=32844), {"unsupported"}),
    "JPEG that is garbage": (lambda: b"\xff\xd8\xff" + b"garbage" * 30, {"corrupt"}),
    "PNG without its header": (lambda: declared(9, 9).replace(b"IHDR", b"iHDR"), {"corrupt"}),
    "PNG with a broken checksum": (lambda: declared(9, 9).replace(b"\x08\x02\0\0\0", b"\x08\x00\0\0\0"), {"corrupt"}),
    "PNG with broken pixels": (
        lambda: png(b"", (9, 9), 8, 2, (b"IDAT", b"not deflated at all, not in the least")),
        {"corrupt", "truncated"},
    ),
    "PNG of no width": (lambda: declared(0, 9), {"corrupt"}),
    "PNG of 60000 x 60000": (lambda: declared(60000, 60000), {"too_large"}),
    "PNG of 20000 x 15000": (lambda: declared(20000, 15000), {"too_large"}),
    "GIF of 65535 x 65535": (lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08", {"too_large"}),
    "ICO of a PNG of 60000 x 60000": (lambda: ico_of(declared(60000, 60000)), {"too_large"}),
    "ICO of a PNG of 20000 x 15000": (lambda: ico_of(declared(20000, 15000)), {"too_large"}),
}  # fmt: skip


@pytest.mark.parametrize(("make", "codes"), BROKEN.values(), ids=BROKEN)
def test_an_incomplete_image_has_a_code(
    decoded: Callable[..., Image.Image], make: Callable[[], bytes], codes: set[str]
) -> None:
    data = make()
    began = time.monotonic()
    with pytest.raises(ImageError) as caught:
        decoded(data, name="image.jpg")
    assert time.monotonic() - began < 2
    assert caught.value.code in codes
    assert str(caught.value).isprintable()
    if data:
        with pytest.raises(ImageError) as again:
            decode(Fetched(Source("http://h/x.jpg", "url"), data), UNTIMED, nullcontext())
        assert (again.value.code, str(again.value)) == (caught.value.code, str(caught.value))


def test_fetched_without_bytes_is_empty() -> None:
    with pytest.raises(ImageError) as caught:
        decode(Fetched(Source("-", "stdin"), b""), UNTIMED, nullcontext())
    assert caught.value.code == "empty_file"


def test_no_cut_of_an_image_gives_part_of_it(decoded: Callable[..., Image.Image]) -> None:
    for file_format, end in [("JPEG", 2), ("PNG", 32)]:
        data = encoded(noise(8, 8), file_format)
        for length in range(4, len(data) - end):
            with pytest.raises(ImageError) as caught:
                decoded(data[:length])
            assert caught.value.code in {"truncated", "corrupt", "not_an_image"}, length


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("gone.jpg", "not_found"),
        ("folder/gone.jpg", "not_found"),
        ("file.jpg/x.jpg", "not_found"),
        ("nul\0.jpg", "not_found"),
        ("broken.jpg", "not_found"),
        ("caf\udce9.jpg", "not_found"),
        ("", "not_found"),
        ("folder", "not_an_image"),
        ("folder/", "not_an_image"),
        (".", "not_an_image"),
        ("/dev/null", "empty_file"),
    ],
    ids=repr,
)
def test_a_path_without_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str, code: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file.jpg").write_bytes(encoded(noise(), "JPEG"))
    Path("broken.jpg").symlink_to("gone.jpg")
    with pytest.raises(ImageError) as caught:
        decode(Source(location), UNTIMED, nullcontext())
    assert caught.value.code == code
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("locked", ["folder/a.jpg", "folder"], ids=["file", "folder"])
def test_an_unreadable_file_is_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: str) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("folder").mkdir()
    Path("folder/a.jpg").write_bytes(encoded(noise(), "JPEG"))
    Path(locked).chmod(0)
    try:
        with unprivileged(), pytest.raises(ImageError) as caught:
            decode(Source("folder/a.jpg"), UNTIMED, nullcontext())
    finally:
        Path(locked).chmod(0o755)
    assert caught.value.code == "permission"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP", "ICO"])
def test_max_pixels_is_the_largest_allowed_size(decoded: Callable[..., Image.Image], file_format: str) -> None:
    data = encoded(noise(16, 16, "RGB"), file_format)
    assert decoded(data, Decoding(max_pixels=256, seconds=0)).size == (16, 16)
    for limit in (255, 127, 1):
        with pytest.raises(ImageError) as caught:
            decoded(data, Decoding(max_pixels=limit, seconds=0))
        assert caught.value.code == "too_large"


def test_max_pixels_limits_an_image_inside_a_file_too(decoded: Callable[..., Image.Image]) -> None:
    data = ico_of(encoded(noise(100, 100, "RGBA"), "PNG"))
    assert decoded(data, Decoding(max_pixels=10_000, seconds=0)).size == (100, 100)
    with pytest.raises(ImageError) as caught:
        decoded(data, Decoding(max_pixels=9_999, seconds=0))
    assert caught.value.code == "too_large"


def damaged(data: bytes, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randrange(len(broken))
        if rng.random() < 0.5:
            place %= 64
        kind = rng.randrange(5)
        if kind == 0:
            broken[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            broken[place] = rng.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            broken[place : place + rng.randrange(1, 9)] = b""
        elif kind == 3:
            broken[place:place] = rng.randbytes(rng.randrange(1, 9))
        else:
            del broken[max(place, 4) :]
        broken = broken or bytearray(b"\0")
    return bytes(broken)


SEEDS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(noise(24, 16), "JPEG", exif=Image.Exif()),
    "progressive JPEG": lambda: encoded(noise(24, 16), "JPEG", progressive=True),
    "PNG": lambda: encoded(noise(24, 16, "P"), "PNG", transparency=3),
    "16-bit PNG": lambda: png(words(*GREY_16), (6, 1), 16, 0, (b"tRNS", words(257))),
    "GIF": lambda: encoded(noise(24, 16), "GIF", save_all=True, append_images=[flat(BLUE, size=(24, 16))]),
    "WebP": lambda: encoded(noise(24, 16, "RGBA"), "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "TIFF": lambda: encoded(noise(24, 16), "TIFF"),
    "compressed TIFF": lambda: encoded(noise(24, 16), "TIFF", compression="tiff_lzw"),
    "float TIFF": lambda: tiff("<", "f", [0, 0.5, 3, NAN]),
    "BMP": lambda: encoded(noise(24, 16), "BMP"),
    "ICO": lambda: encoded(noise(16, 16, "RGBA"), "ICO"),
    "PPM": lambda: encoded(noise(24, 16), "PPM"),
    "TGA": lambda: encoded(noise(24, 16), "TGA", compression="tga_rle"),
    "JPEG 2000": lambda: encoded(noise(24, 16), "JPEG2000"),
}


@pytest.mark.parametrize("name", SEEDS)
def test_damage_gives_an_image_or_a_code(name: str) -> None:
    data = SEEDS[name]()
    rng = random.Random(name)
    codes = ERROR_CODES.keys() - {"not_found", "permission", "io_error", "timeout", "http_NNN", "network"}
    outcomes = set()
    for _ in range(110):
        broken = damaged(data, rng)
        try:
            image = decode(Fetched(Source("x"), broken), Decoding(1_000_000, 0), nullcontext())
        except ImageError as error:
            assert error.code in codes, (error.code, str(error), broken)
            assert str(error).strip(), broken
            assert str(error).isprintable(), broken
            outcomes.add(error.code)
        else:
            assert image.mode == "RGB"
            assert np.asarray(image).shape == (image.height, image.width, 3)
            outcomes.add("image")
    assert len(outcomes) > 1


SCALES = {
    "a square": ((300, 300), 1, True),
    "wide": ((300, 700), 1, True),
    "tall": ((700, 300), 1, True),
    "just half": ((750, 750), 1, True),
    "one more than half": ((751, 751), 1, False),
    "a square, turned": ((300, 300), 6, True),
    "wide, turned": ((700, 1000), 6, False),
    "tall, turned": ((1001, 700), 6, False),
    "whole": ((1500, 2000), 1, False),
    "more than whole": ((3000, 3000), 1, False),
}


@pytest.mark.parametrize(("requested", "orientation", "smaller"), SCALES.values(), ids=SCALES)
def test_a_scaled_jpeg_is_smaller_but_never_below_the_requested_size(
    decoded: Callable[..., Image.Image], requested: tuple[int, int], orientation: int, smaller: bool
) -> None:
    data = encoded(flat(RED, size=(2000, 1500)), "JPEG", exif=exif_of(orientation))
    full = decoded(data)
    assert full.size == ((2000, 1500) if orientation == 1 else (1500, 2000))
    scaled = decoded(data, Decoding(seconds=0, scaled_to=requested))
    assert scaled.height >= min(requested[0], full.height)
    assert scaled.width >= min(requested[1], full.width)
    if smaller:
        assert scaled.width < full.width
        assert scaled.height < full.height
    np.testing.assert_allclose(np.asarray(scaled)[::50, ::50].reshape(-1, 3).mean(0), RED, rtol=0, atol=3)


@pytest.mark.parametrize("requested", [(40, 60), (400, 600), (30, 10)])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_other_images_are_not_scaled(
    decoded: Callable[..., Image.Image], requested: tuple[int, int], file_format: str
) -> None:
    data = encoded(noise(), file_format)
    scaled = decoded(data, Decoding(seconds=0, scaled_to=requested))
    np.testing.assert_array_equal(np.asarray(scaled), np.asarray(decoded(data)))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_a_fifo_is_read(tmp_path: Path, decoded: Callable[..., Image.Image], file_format: str) -> None:
    data = encoded(noise(300, 200), file_format)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    image = decode(Source(str(pipe)), UNTIMED, nullcontext())
    writer.join(10)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(decoded(data)))


def test_a_fifo_without_bytes_is_empty(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"",), daemon=True)
    writer.start()
    with pytest.raises(ImageError) as caught:
        decode(Source(str(pipe)), UNTIMED, nullcontext())
    writer.join(10)
    assert caught.value.code == "empty_file"


@pytest.mark.parametrize(
    ("size", "share", "locked"),
    [((8000, 7000), 1, 1), ((10_000, 5_000), 1, 0), ((100, 100), 1, 0), ((8000, 7000), 0.5, 1)],
    ids=["large", "just not large", "small", "large and cut"],
)
def test_only_large_images_take_the_lock(
    decoded: Callable[..., Image.Image], tmp_path: Path, size: tuple[int, int], share: float, locked: int
) -> None:
    path = tmp_path / "image"
    data = encoded(Image.new("1", size), "GIF")
    path.write_bytes(data[: int(len(data) * share)])
    seen = []

    @contextmanager
    def lock() -> Iterator[None]:
        seen.append("begins")
        try:
            yield
        finally:
            seen.append("ends")

    assert (size[0] * size[1] > LARGE_PIXELS) == bool(locked)
    try:
        assert decode(Source(str(path)), UNTIMED, lock()).size == size
    except ImageError as error:
        assert (share, error.code) == (0.5, "truncated")
    else:
        assert share == 1
    assert seen == ["begins", "ends"] * locked


CLOCKS = {
    "a FIFO without a writer": (
        "os.mkfifo('pipe'); result('pipe')",
        -signal.SIGALRM,
    ),
    "a FIFO whose writer is silent": (
        "os.mkfifo('pipe'); os.open('pipe', os.O_RDWR); result('pipe')",
        -signal.SIGALRM,
    ),
    "a decoder that takes too long": (
        "ImageFile.ImageFile.load = lambda self: time.sleep(60); result('image')",
        -signal.SIGALRM,
    ),
    "time after an image": ("result('image'); time.sleep(0.6)", 0),
    "time after a failure": (
        "os.truncate('image', 99); assert result('image').code == 'truncated'; time.sleep(0.6)",
        0,
    ),
    "waiting for the lock": ("decoding.LARGE_PIXELS = 1; result('image', lock=slow_lock())", 0),
    "no limit": ("result('image', Decoding(seconds=0)); time.sleep(0.1)", 0),
}


@pytest.mark.parametrize(("code", "status"), CLOCKS.values(), ids=CLOCKS)
def test_the_time_limit_ends_the_process_while_decoding_and_only_then(tmp_path: Path, code: str, status: int) -> None:
    (tmp_path / "image").write_bytes(encoded(noise(), "PNG"))
    prelude = """
import os, time
from contextlib import contextmanager, nullcontext
from PIL import Image, ImageFile
import beitcli.inputs.decode as decoding
from beitcli.inputs.decode import Decoding, outcome
from beitcli.records import Source
Image.init()
def result(name, limits=Decoding(seconds=0.4), lock=nullcontext()):
    return outcome(Source(name), lambda image: image.tobytes(), limits, lock)
@contextmanager
def slow_lock():
    time.sleep(0.6)
    yield
"""
    process = subprocess.run([sys.executable, "-c", prelude + code], cwd=tmp_path, timeout=60, check=False)
    assert process.returncode == status


def test_threads_leave_the_settings_of_the_process_as_they_were(tmp_path: Path) -> None:
    sizes = [(40, 30), (400, 300), (1200, 900)]
    for number, size in enumerate(sizes):
        Image.new("RGB", size, RED).save(tmp_path / f"{number}.tif")
        Image.new("RGB", size, RED).save(tmp_path / f"{number}.gif")
    before = list(warnings.filters), Image.MAX_IMAGE_PIXELS

    def decode_each(number: int) -> None:
        for path in sorted(tmp_path.iterdir())[number % 3 :] * 20:
            assert decode(Source(str(path)), UNTIMED, nullcontext()).getpixel((0, 0)) == RED

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(decode_each, range(12)))
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before


def test_an_images_own_timer_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(decoding, "LARGE_PIXELS", 10)
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    signal.setitimer(signal.ITIMER_REAL, 1000)
    try:
        decode(Source(str(tmp_path / "large.png")), UNTIMED, nullcontext())
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
