"""Inputs made after public bug reports, whole, damaged and odd, with the expected result of each (field/README.md)."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli.errors import ImageError
from beitcli.inputs.decode import Decoding, decode

FIELD = Path(__file__).parent.parent / "field"
DAMAGED = {"truncated", "corrupt"}


def decoded(name: str, scaled_to: tuple[int, int] | None = None) -> Image.Image:
    with (FIELD / name).open("rb") as stream:
        return decode(stream, Decoding(seconds=0, scaled_to=scaled_to), nullcontext())


@pytest.mark.parametrize(
    "name",
    [
        "grid-whole.heic",
        "whole.jpg",
        "png-itxt-of-1.3-MB.png",
        "png-short-gama.png",
        "png-text-with-a-bad-checksum.png",
        "jpeg-adobe-cut.jpg",
    ],
)
def test_whole_images_are_read_despite_their_notes(name: str) -> None:
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif")
    assert np.asarray(decoded(name)).std() > 10


@pytest.mark.parametrize("scaled_to", [None, (40, 40)], ids=["full", "fast"])
@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("grid-cut-at-50.heic", DAMAGED),
        ("baseline-cut-at-50-plus-eoi.jpg", DAMAGED),
        ("baseline-4k-missing.jpg", DAMAGED),
        ("zeros-after-50.lossless.webp", DAMAGED),
        ("sparse-half.tif", DAMAGED),
        ("07-pcx-P-cut90.pcx", {"truncated"}),
        ("12-bit.jpg", {"unsupported"}),
        ("png-apple-cgbi.png", {"unsupported"}),
        ("rgb8-lerc.tif", {"unsupported"}),
    ],
)
def test_damaged_and_unsupported_images_are_errors(
    name: str, codes: set[str], scaled_to: tuple[int, int] | None
) -> None:
    if name.endswith("heic"):
        pytest.importorskip("pillow_heif")
    with pytest.raises(ImageError) as caught:
        decoded(name, scaled_to)
    assert caught.value.code in codes


@pytest.mark.parametrize(
    ("name", "kind"), [("12-bit.jpg", "12-bit"), ("png-apple-cgbi.png", "CgBI"), ("rgb8-lerc.tif", "LERC")]
)
def test_the_message_names_the_kind(name: str, kind: str) -> None:
    with pytest.raises(ImageError, match=kind):
        decoded(name)


def test_planes_of_16_bits_are_those_of_the_reference() -> None:
    found, wanted = decoded("planar16-None-le.tif"), decoded("planar16-reference.png")
    np.testing.assert_allclose(np.asarray(found).astype(int), np.asarray(wanted), rtol=0, atol=1)
