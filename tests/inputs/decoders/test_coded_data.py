"""Damage in HEIF, AVIF, WebP, JPEG 2000, JPEG XL and PCX that their decoders ignore."""

import io
import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from beitcli.errors import ImageError
from beitcli.inputs.decode import Decoding, decode
from beitcli.inputs.decoders import jxl

FIELD = Path(__file__).parents[2] / "field"
SAMPLE = Path(__file__).parents[3] / "samples" / "cat.jpg"


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(io.BytesIO(data), Decoding(seconds=0), nullcontext()))


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    if file_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if file_format == "JXL":
        pytest.importorskip("pillow_jxl")
    if file_format == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def photograph() -> Image.Image:
    return Image.open(SAMPLE).convert("RGB")


def tiled() -> bytes:
    pytest.importorskip("pillow_heif")
    return (FIELD / "grid-whole.heic").read_bytes()


KINDS: dict[str, Callable[[], bytes]] = {
    "HEIC of tiles": tiled,
    "HEIC": lambda: encoded(photograph(), "HEIF", quality=80),
    "HEIC with transparency": lambda: encoded(photograph().convert("RGBA"), "HEIF", quality=80),
    "AVIF": lambda: encoded(photograph(), "AVIF", quality=80),
    "WebP": lambda: encoded(photograph(), "WEBP", quality=90),
    "lossless WebP": lambda: encoded(photograph(), "WEBP", lossless=True),
    "WebP with transparency": lambda: encoded(photograph().convert("RGBA"), "WEBP", quality=90),
    "JPEG 2000": lambda: encoded(photograph(), "JPEG2000"),
    "JPEG XL": lambda: encoded(photograph(), "JXL"),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_whole_images_are_read(make: Callable[[], bytes]) -> None:
    assert pixels(make()).std() > 10


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_images_cut_or_overwritten_with_zeros_are_errors(make: Callable[[], bytes], share: float) -> None:
    data = make()
    place = int(share * len(data))
    size = min(4096, len(data) - place - 40)
    for broken in (data[:place], data[:place] + bytes(size) + data[place + size :]):
        with pytest.raises(ImageError) as caught:
            pixels(broken)
        assert caught.value.code in {"truncated", "corrupt"}


def test_every_tile_of_a_heic_counts() -> None:
    """The tiles' data follow each other: a small gap anywhere is in one of them."""
    data = tiled()
    start = data.index(b"mdat") + 200
    for place in range(start, len(data) - 100, (len(data) - start) // 12):
        with pytest.raises(ImageError):
            pixels(data[:place] + bytes(64) + data[place + 64 :])


FLAT = {
    "white": lambda size: Image.new("RGB", size, "white"),
    "black": lambda size: Image.new("RGB", size, "black"),
    "a page": lambda size: drawn(size),
    "grey": lambda size: Image.new("RGB", size, (128, 128, 128)),
}


def drawn(size: tuple[int, int]) -> Image.Image:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 40), "page 1", fill="black")
    draw.ellipse((300, 300, 500, 500), fill="blue")
    return image


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["WEBP", "lossless WEBP", "AVIF", "HEIF", "JPEG2000"])
@pytest.mark.parametrize("make", FLAT.values(), ids=FLAT)
def test_images_of_few_colours_are_valid(make: Callable[[tuple[int, int]], Image.Image], file_format: str) -> None:
    options: dict[str, object] = {"lossless": True} if file_format.startswith("lossless") else {}
    data = encoded(
        make((4000, 3000) if "WEBP" in file_format else (1500, 1000)), file_format.removeprefix("lossless "), **options
    )
    assert pixels(data).shape in {(1000, 1500, 3), (3000, 4000, 3)}


@pytest.mark.parametrize("file_format", ["AVIF", "HEIF", "WEBP", "JXL"])
def test_broken_exif_is_ignored(file_format: str) -> None:
    notes = Image.Exif()
    notes[0x010F] = "Camera"
    options: dict[str, object] = {"lossless_jpeg": False} if file_format == "JXL" else {}
    data = encoded(photograph(), file_format, exif=notes.tobytes(), **options)
    place = data.index(b"MM\0*") if b"MM\0*" in data else data.index(b"II*\0")
    whole = pixels(data)
    for lost in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        np.testing.assert_array_equal(pixels(data[:place] + lost + data[place + 4 :]), whole)


@pytest.mark.parametrize("turned", [1, 3, 6])
def test_a_turned_avif_is_upright(turned: int) -> None:
    notes = Image.Exif()
    notes[0x0112] = turned
    data = encoded(photograph(), "AVIF", exif=notes)
    shape = (*photograph().size[::-1], 3)
    assert pixels(data).shape == (shape if turned < 5 else (shape[1], shape[0], 3))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"lossless_jpeg": False}, {"lossless": True, "lossless_jpeg": False}, {}], ids=str)
@pytest.mark.parametrize("size", [(64, 48), (640, 480), (333, 5000), (17, 17)])
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(size: tuple[int, int], options: dict[str, object]) -> None:
    image = photograph().resize(size)
    for data in (encoded(image, "JXL", **options), encoded(image, "JXL", use_container=True, **options)):
        assert jxl.size(data) == size
        with pytest.raises(ImageError) as caught:
            decode(io.BytesIO(data), Decoding(max_pixels=size[0] * size[1] - 1, seconds=0), nullcontext())
        assert caught.value.code == "too_large"
        assert pixels(data).shape == (size[1], size[0], 3)


def test_without_the_extra_a_jpeg_xl_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photograph(), "JXL")
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    with pytest.raises(ImageError, match=r"beitcli\[jxl\]") as caught:
        pixels(data)
    assert caught.value.code == "unsupported"


def test_a_pcx_without_its_palette_is_truncated() -> None:
    data = encoded(photograph().convert("P"), "PCX")
    assert pixels(data).std() > 10
    for broken in (data[:-769], data[:-100], data[:-769] + random.Random(1).randbytes(769).replace(b"\x0c", b"\x0d")):
        with pytest.raises(ImageError) as caught:
            pixels(broken)
        assert caught.value.code == "truncated"
    grey = encoded(photograph().convert("L"), "PCX")
    without = bytearray(grey[:-769])
    without[68] = 2  # shades of grey
    np.testing.assert_array_equal(pixels(bytes(without)), pixels(grey))


@pytest.mark.parametrize("effort", [{"method": 0, "quality": 100}, {"method": 0, "quality": 0}, {"method": 6}], ids=str)
@pytest.mark.parametrize("lossless", [False, True], ids=["lossy", "lossless"])
def test_a_webp_with_much_of_one_colour_is_valid(effort: dict[str, object], lossless: bool) -> None:
    image = Image.new("RGBA", (1600, 1200), "white")
    image.paste(photograph().resize((300, 200)), (500, 400))
    image.paste((0, 0, 0, 0), (0, 0, 1600, 100))
    data = encoded(image, "WEBP", lossless=lossless, **effort)
    assert pixels(data).shape == (1200, 1600, 3)


@pytest.mark.parametrize("file_format", ["HEIF", "AVIF", "JPEG2000"])
def test_erased_memory_is_an_error(file_format: str) -> None:
    """Erased flash holds only ones."""
    data = encoded(photograph(), file_format)
    for place in (len(data) // 2, len(data) * 4 // 5):
        with pytest.raises(ImageError):
            pixels(data[:place] + b"\xff" * 512 + data[place + 512 :])


@pytest.mark.parametrize("brand", [b"avci", b"1pic", b"mif2"])
def test_other_kinds_of_heif_are_named(brand: bytes) -> None:
    with pytest.raises(ImageError, match=brand.decode()) as caught:
        pixels(b"\0\0\0\x18ftyp" + brand + bytes(400))
    assert caught.value.code == "unsupported"
