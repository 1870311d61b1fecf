"""JPEG: damage that libjpeg ignores, valid files that it warns of, and kinds that are not opened."""

import base64
import io
import os
import random
import re
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from beitcli.errors import ImageError
from beitcli.inputs.decode import Decoding, decode
from beitcli.inputs.decoders.huffman import check_entropy_coded_data
from beitcli.inputs.decoders.jpeg_stream import segments

SAMPLES = Path(__file__).parents[3] / "samples"
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline": ("RGB", {}),
    "optimized": ("RGB", {"optimize": True, "quality": 60}),
    "progressive": ("RGB", {"progressive": True}),
    "restart markers": ("RGB", {"restart_marker_rows": 1}),
    "progressive with restart markers": ("RGB", {"restart_marker_blocks": 5, "progressive": True}),
    "grey": ("L", {}),
    "grey with restart markers": ("L", {"restart_marker_blocks": 7}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "CMYK": ("CMYK", {}),
}


def pixels(data: bytes, scaled_to: tuple[int, int] | None = None) -> np.ndarray:
    return np.asarray(decode(io.BytesIO(data), Decoding(seconds=0, scaled_to=scaled_to), nullcontext()))


def photograph(number: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A part of one of the samples, the same for the same number, with the grain of a camera."""
    rng = random.Random(number)
    image = Image.open(sorted(SAMPLES.glob("*.jpg"))[number % 3]).convert("RGB")
    width = rng.randrange(image.width // 2, image.width)
    height = width * size[1] // size[0]
    left, top = rng.randrange(image.width - width), rng.randrange(max(1, image.height - height))
    part = image.crop((left, top, left + width, top + height)).resize(size)
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    grain = np.random.default_rng(number).normal(0, 4, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.asarray(part) + grain, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, kind: str = "baseline") -> bytes:
    mode, options = KINDS[kind]
    stream = io.BytesIO()
    image.convert(mode).save(stream, "JPEG", **{"quality": 85, **options})
    return stream.getvalue()


def coded_data(data: bytes) -> int:
    """Start of the coded data of the first scan."""
    return next(segment.end for segment in segments(data) if segment.marker == 0xDA)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled_to", [None, (60, 60)], ids=["full", "fast"])
def test_the_pixels_are_pillows(kind: str, scaled_to: tuple[int, int] | None) -> None:
    data = jpeg(photograph(1), kind)
    image = Image.open(io.BytesIO(data))
    if scaled_to:
        image.draft(None, scaled_to)
    np.testing.assert_array_equal(pixels(data, scaled_to), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["baseline", "grey", "CMYK"])
def test_the_pixels_of_a_large_image_are_pillows_too(kind: str) -> None:
    data = jpeg(photograph(1, (1203, 901)), kind)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", KINDS)
def test_the_strict_check_accepts_valid_data(kind: str) -> None:
    for number in range(3):
        check_entropy_coded_data(jpeg(photograph(number, (131, 77)), kind))


@pytest.mark.parametrize("colour", ["white", "black", (200, 10, 10)])
@pytest.mark.parametrize("kind", ["baseline", "optimized", "progressive", "grey"])
def test_images_of_one_colour_are_valid_despite_their_zeros(kind: str, colour: str) -> None:
    data = jpeg(Image.new("RGB", (1200, 900), colour), kind)
    assert pixels(data).shape == (900, 1200, 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled_to", [None, (60, 60)], ids=["full", "fast"])
@pytest.mark.parametrize("damage", ["cut", "zeros", "noise"])
def test_damage_is_an_error(kind: str, damage: str, scaled_to: tuple[int, int] | None) -> None:
    data = jpeg(photograph(2), kind)
    start = coded_data(data)
    for share in (0.2, 0.5, 0.8):
        place = start + int(share * (len(data) - start))
        with pytest.raises(ImageError) as caught:
            pixels(damaged(data, damage, place, 2000, random.Random(share)), scaled_to)
        assert caught.value.code in {"truncated", "corrupt"}


def damaged(data: bytes, damage: str, place: int, size: int, rng: random.Random, other: bytes = b"") -> bytes:
    if damage == "cut":
        return data[:place] + b"\xff\xd9"
    size = min(size, len(data) - 2 - place)
    if damage == "zeros":
        lost = bytes(size)
    elif damage == "noise":
        lost = rng.randbytes(size)
    else:
        middle = (coded_data(other) + len(other)) // 2
        lost = other[middle : middle + size].ljust(size, b"\x55")
    return data[:place] + lost + data[place + size :]


@pytest.mark.parametrize("stray", [b"\0", b"\0\0\0\0", b"\x5a\x13\x77", b"\xff\xff"], ids=lambda stray: stray.hex())
@pytest.mark.parametrize("kind", ["baseline", "grey", "restart markers", "grey with restart markers"])
def test_stray_bytes_before_markers_are_ignored(kind: str, stray: bytes) -> None:
    data = jpeg(photograph(3), kind)
    start = coded_data(data)
    strayed = data[:start] + re.sub(rb"(?s)(\xff[\xd0-\xd9])", lambda marker: stray + marker[1], data[start:])
    assert len(strayed) > len(data)
    np.testing.assert_array_equal(pixels(strayed), pixels(data))


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_end_marker_an_image_is_whole(kind: str) -> None:
    data = jpeg(photograph(4), kind)
    np.testing.assert_array_equal(pixels(data[:-2]), pixels(data))


@pytest.mark.parametrize("kind", ["baseline", "optimized", "grey", "progressive", "restart markers"])
@pytest.mark.parametrize("size", [40, 600, 5000])
def test_a_file_padded_with_zeros_is_whole(kind: str, size: int) -> None:
    data = jpeg(photograph(4), kind)
    np.testing.assert_array_equal(pixels(data[:-2] + bytes(size)), pixels(data))
    np.testing.assert_array_equal(pixels(data[:-2] + bytes(size) + data[-2:]), pixels(data))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_download_padded_with_zeros_is_damaged(kind: str, share: float) -> None:
    data = jpeg(photograph(4), kind)
    start = coded_data(data)
    place = start + int(share * (len(data) - start))
    with pytest.raises(ImageError):
        pixels(data[:place] + bytes(len(data) - place))


def test_runs_of_fill_bytes_take_no_time() -> None:
    data = jpeg(photograph(4))
    began = time.process_time()
    with pytest.raises(ImageError):
        pixels(data[: len(data) // 2] + b"\xff" * 1_000_000)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("kind", ["stripes", "ramps", "columns"])
@pytest.mark.parametrize("quality", [75, 92, 100])
def test_regular_patterns_are_valid(kind: str, quality: int) -> None:
    """Their progressive data has zeros in scans that depend on earlier scans."""
    rows, columns = np.mgrid[:600, :800]
    values = {"stripes": rows % 2 * 255, "ramps": columns % 16 * 16, "columns": rows * 255 // 600}[kind]
    image = Image.fromarray(np.stack([values, values[::-1], 255 - values], axis=2).astype(np.uint8))
    for progressive in (False, True):
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, progressive=progressive)
        assert pixels(stream.getvalue()).shape == (600, 800, 3)


def test_a_progressive_image_without_its_last_scans_is_truncated() -> None:
    data = jpeg(photograph(5), "progressive")
    scans = [segment.start for segment in segments(data) if segment.marker == 0xC4]
    with pytest.raises(ImageError) as caught:
        pixels(data[: scans[-1]] + b"\xff\xd9")
    assert caught.value.code == "truncated"


NOT_INTERLEAVED = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8yb"
    "qmx5moq6T/2wBDARweHigjKE4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/wAARCAAQ"
    "ABgDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAgP/xAAgEAACAgIBBQEAAAAAAAAAAAABAgMRABIhIjFBUWFx/9oACAEBAAA/AC5Bd2"
    "UHQnv7ycarMp7jU1zidBLErAFk/MaRbRq1ceReBrR+nm+kj57y0Ua2uwIv7Qz/xAAVAQEBAAAAAAAAAAAAAAAAAAACA//EABYRAQEBAAAAAAAA"
    "AAAAAAAAAAABEf/aAAgBAhEAPwCN04//xAAVAQEBAAAAAAAAAAAAAAAAAAACA//EABQRAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQMRAD8AsL//2Q"
    "=="
)
"""24 × 16 pixels, sequential, a scan for each colour component."""


def test_a_sequential_image_without_its_last_scans_is_truncated() -> None:
    whole = pixels(NOT_INTERLEAVED)
    assert whole.shape == (16, 24, 3)
    scans = [each.start for each in segments(NOT_INTERLEAVED) if each.marker == 0xDA]
    for scan in scans[1:]:
        with pytest.raises(ImageError) as caught:
            pixels(NOT_INTERLEAVED[:scan] + b"\xff\xd9")
        assert caught.value.code == "truncated"


def test_restart_intervals_that_are_lost_are_an_error() -> None:
    data = jpeg(photograph(6), "restart markers")
    places = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    with pytest.raises(ImageError):
        pixels(data[: places[2]] + data[places[4] :])


def test_a_quantization_table_of_zeros_is_corrupt() -> None:
    data = jpeg(photograph(6))
    table = next(each for each in segments(data) if each.marker == 0xDB)
    with pytest.raises(ImageError, match="quantization") as caught:
        pixels(data[: table.start + 5] + bytes(64) + data[table.start + 69 :])
    assert caught.value.code == "corrupt"


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


NOTES = {
    "JFIF, empty": segment(0xE0, b""),
    "JFIF, cut": segment(0xE0, b"JFIF\0\1"),
    "EXIF, cut": segment(0xE1, b"Exif\0\0MM\0"),
    "EXIF, noise": segment(0xE1, b"Exif\0\0" + random.Random(1).randbytes(300)),
    "ICC, empty": segment(0xE2, b"ICC_PROFILE\0"),
    "ICC, cut": segment(0xE2, b"ICC_PROFILE\0\1\3" + b"x" * 60),
    "ICC, of 3 MB": b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 50)) + b"x" * 60_000) for n in range(1, 51)),
    "MPF, cut": segment(0xE2, b"MPF\0MM\0*\0\0"),
    "Photoshop, noise": segment(0xED, b"Photoshop 3.0\x008BIM" + random.Random(2).randbytes(40)),
    "Adobe, empty": segment(0xEE, b"Adobe"),
    "Adobe, cut": segment(0xEE, b"Adobe\0\x64\0\0"),
    "comment, empty": segment(0xFE, b""),
    "junk between segments": b"\0\1\2\3",
}


@pytest.mark.parametrize("note", NOTES.values(), ids=NOTES)
def test_broken_notes_are_ignored(note: bytes) -> None:
    data = jpeg(photograph(7))
    first = next(segments(data)).end
    np.testing.assert_array_equal(pixels(data[:first] + note + data[first:]), pixels(data))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_notes_still_give_the_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    photograph(8).save(stream, "JPEG", exif=exif)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="%d"/>' % orientation
    plain = jpeg(photograph(8))
    for data in (stream.getvalue(), plain[:2] + segment(0xE1, xmp) + plain[2:]):
        assert pixels(data).shape == ((240, 320, 3) if orientation < 5 else (320, 240, 3))


def frame(data: bytes, marker: int, **changes: int) -> bytes:
    """The same file with another frame marker, and with bytes of the frame header changed by their place."""
    header = next(each for each in segments(data) if each.marker in (0xC0, 0xC2))
    content = bytearray(header.content)
    for place, value in changes.items():
        content[int(place.removeprefix("at_"))] = value
    return (
        data[: header.start]
        + bytes((0xFF, marker))
        + data[header.start + 2 : header.start + 4]
        + content
        + data[header.end :]
    )


UNOPENED = {
    "12-bit": lambda data: frame(data, 0xC1, at_0=12),
    "16-bit": lambda data: frame(data, 0xC3, at_0=16),
    "hierarchical": lambda data: frame(data, 0xC5),
    "hierarchical, by its first segment": lambda data: data[:2] + segment(0xDE, bytes(6)) + data[2:],
    "lossless arithmetic-coded": lambda data: frame(data, 0xCB),
    "JPEG-LS": lambda data: frame(data, 0xF7),
    "height-in-DNL": lambda data: frame(data, 0xC0, at_1=0, at_2=0),
    "2-component": lambda data: frame(data, 0xC0, at_5=2),
}


@pytest.mark.parametrize("kind", UNOPENED)
def test_kinds_that_are_not_opened_are_named(kind: str) -> None:
    with pytest.raises(ImageError, match=re.escape(kind.split(",")[0])) as caught:
        pixels(UNOPENED[kind](jpeg(photograph(9))))
    assert caught.value.code == "unsupported"


ODD_SAMPLING = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wCDEAAoABwAHgAjAB4AGQAoACMAIQAjAC0AKwAoADAAPABkAEEAPAA3ADcAPAB7AFgAXQBJAGQAkQCAAJ"
    "kAlgCPAIAAjACKAKAAtADmAMMAoACqANoArQCKAIwAyAERAMsA2gDuAPUBAgEEAQIAmwDBARsBLwEYAPoBLADmAP0BAgD4/9sAQwErLS08NTx2"
    "QUF2+KWMpfj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4/8EAEQgAGAAoAwERAAIiAQMRAf/EABcAAA"
    "MBAAAAAAAAAAAAAAAAAAACAwH/xAAeEAEAAgEEAwAAAAAAAAAAAAABAhEAAxMxcSFBYf/EABcBAQEBAQAAAAAAAAAAAAAAAAABAgP/xAAWEQEB"
    "AQAAAAAAAAAAAAAAAAAAARH/2gAMAwEAAhEDEQA/AFm3aHPBmKgjoyNUSrzx1lE1QOkKtEvuaARWIbQ+6yJYCkhEdTGEAtWhJp7c2Ay//9k="
)
"""40 × 24 pixels whose chroma has four times the samples of luma, which turbojpeg does not know."""


def test_sampling_factors_unknown_to_turbojpeg_are_left_to_pillow() -> None:
    np.testing.assert_array_equal(pixels(ODD_SAMPLING), np.asarray(Image.open(io.BytesIO(ODD_SAMPLING))))
    start = coded_data(ODD_SAMPLING)
    for lost in (bytes(60), b"\x55" * 60):
        with pytest.raises(ImageError):
            pixels(ODD_SAMPLING[: start + 10] + lost + ODD_SAMPLING[start + 70 :])


PHOTOGRAPHS = os.environ.get("BEIT_TEST_PHOTOGRAPHS")
"""A folder of JPEG files to be damaged instead of parts of the samples."""


def whole_photographs(count: int) -> list[bytes]:
    if PHOTOGRAPHS:
        return [path.read_bytes() for path in sorted(Path(PHOTOGRAPHS).iterdir())[:count]]
    kinds = [*KINDS]
    return [jpeg(photograph(number), kinds[number % len(kinds)]) for number in range(count)]


def differing_share(found: np.ndarray, whole: np.ndarray) -> float:
    """The share of 16 × 16 blocks whose mean absolute difference is above 8."""
    height, width = (side // 16 * 16 for side in whole.shape[:2])
    difference = np.abs(found.astype(int) - whole.astype(int))[:height, :width]
    return float((difference.reshape(height // 16, 16, width // 16, 16, 3).mean((1, 3, 4)) > 8).mean())


@pytest.mark.parametrize("count", [pytest.param(20, id="20"), pytest.param(200, id="200", marks=pytest.mark.slow)])
def test_study_of_damage(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Almost no visible damage is missed.

    The rest is another JPEG's data in place of lost data, after which the codes resynchronise and end at the last
    byte: nothing in the file indicates it.
    """
    rng = random.Random(count)
    photographs = whole_photographs(count)
    tried, undetected = Counter[str](), Counter[str]()
    for data in photographs:
        whole = pixels(data)
        start = coded_data(data)
        for damage in ("cut", "zeros", "foreign"):
            for share in (0.1, 0.3, 0.5, 0.7, 0.9):
                place = start + int(share * (len(data) - start))
                broken = damaged(data, damage, place, 4096, rng, rng.choice(photographs))
                tried[damage] += 1
                try:
                    undetected[damage] += differing_share(pixels(broken), whole) > 0.02
                except ImageError:
                    continue
    with capsys.disabled():
        shares = {each: f"{undetected[each]}/{tried[each]}" for each in tried}
        print("\nundetected though more than 2 % differ:", shares)  # noqa: T201
    assert undetected["cut"] == undetected["zeros"] == 0
    assert undetected["foreign"] <= 0.015 * tried["foreign"]


@pytest.mark.parametrize("count", [pytest.param(200, id="200"), pytest.param(2000, id="2000", marks=pytest.mark.slow)])
def test_no_valid_jpeg_is_refused(count: int) -> None:
    kinds = [*KINDS]
    for number in range(count):
        image = photograph(number, (32 + number % 61, 24 + number % 53))
        blurred = image.filter(ImageFilter.GaussianBlur(number % 4)) if number % 4 else image
        data = jpeg(blurred, kinds[number % len(kinds)])
        assert pixels(data).shape == (image.height, image.width, 3)


def test_a_lossless_jpeg_is_read_at_its_full_size_only() -> None:
    """With a smaller size turbojpeg writes beyond its buffer."""
    imagecodecs = pytest.importorskip("imagecodecs")
    image = np.asarray(photograph(12, (640, 480)))
    data = bytes(imagecodecs.jpeg8_encode(image, lossless=True, predictor=1))
    np.testing.assert_array_equal(pixels(data), image)
    np.testing.assert_array_equal(pixels(data, (60, 60)), image)
    with pytest.raises(ImageError) as caught:
        pixels(data[: len(data) // 2])
    assert caught.value.code in {"truncated", "corrupt"}
