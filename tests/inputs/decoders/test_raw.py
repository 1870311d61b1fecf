"""Camera RAW: the embedded preview, upright, or an error that names the kind."""

import io
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from beitcli.errors import ImageError
from beitcli.inputs.decode import Decoding, decode

Turn = Image.Transpose
CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "I", 10: "i"}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode(io.BytesIO(data), Decoding(seconds=0), nullcontext()))


def directory(tags: Mapping[int, tuple[int, Sequence[int]]], start: int) -> bytes:
    """A TIFF directory at this offset, followed by its values."""
    entries, values = b"", b""
    beyond = start + 2 + 12 * len(tags) + 4
    for tag, (kind, content) in sorted(tags.items()):
        data = content if isinstance(content, bytes) else struct.pack(f"<{len(content)}{CODES[kind]}", *content)
        count = len(content) // (2 if kind in (5, 10) else 1)
        if len(data) > 4:
            data, values = struct.pack("<I", beyond + len(values)), values + data + b"\0" * (len(data) % 2)
        entries += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
    return struct.pack("<H", len(tags)) + entries + bytes(4) + values


def dng(preview: bytes, orientation: int = 1) -> bytes:
    """A DNG of a plain grey, with a JPEG preview."""
    width, height = 640, 480
    sensor = np.full((height, width), 1000, "<u2").tobytes()
    preview += b"\0" * (len(preview) % 2)
    size = Image.open(io.BytesIO(preview)).size
    place = 8 + len(sensor) + len(preview)
    full = {
        254: (4, [0]), 256: (4, [width]), 257: (4, [height]), 258: (3, [16]), 259: (3, [1]), 262: (3, [32803]),
        273: (4, [8]), 277: (3, [1]), 278: (4, [height]), 279: (4, [len(sensor)]), 33421: (3, [2, 2]),
        33422: (1, [0, 1, 1, 2]), 50717: (3, [4095]),
    }  # fmt: skip
    sub = directory(full, place)
    sub += b"\0" * (len(sub) % 2)
    first = {
        254: (4, [1]), 256: (4, [size[0]]), 257: (4, [size[1]]), 258: (3, [8, 8, 8]), 259: (3, [7]), 262: (3, [6]),
        271: (2, b"Test\0"), 272: (2, b"Test camera\0"), 273: (4, [8 + len(sensor)]), 274: (3, [orientation]),
        277: (3, [3]), 278: (4, [size[1]]), 279: (4, [len(preview)]), 330: (4, [place]), 50706: (1, [1, 4, 0, 0]),
        50708: (2, b"Test camera\0"), 50721: (10, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),
        50728: (5, [1, 1, 1, 1, 1, 1]), 50778: (3, [21]),
    }  # fmt: skip
    return b"II*\0" + struct.pack("<I", place + len(sub)) + sensor + preview + sub + directory(first, place + len(sub))


def preview() -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(7).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(values).resize((360, 240)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("orientation", "turn"), [(1, None), (3, Turn.ROTATE_180), (6, Turn.ROTATE_270), (8, Turn.ROTATE_90)]
)
def test_a_raw_file_is_its_preview_upright(orientation: int, turn: Turn | None) -> None:
    pytest.importorskip("rawpy")
    image: Image.Image = Image.open(io.BytesIO(preview()))
    if turn is not None:
        image = image.transpose(turn)
    np.testing.assert_array_equal(pixels(dng(preview(), orientation)), np.asarray(image))


def test_a_damaged_preview_is_an_error() -> None:
    pytest.importorskip("rawpy")
    whole = preview()
    with pytest.raises(ImageError) as caught:
        pixels(dng(whole[: len(whole) // 2] + bytes(len(whole) // 4) + whole[len(whole) * 3 // 4 :]))
    assert caught.value.code in {"truncated", "corrupt"}


def test_without_the_extra_it_is_unsupported_and_not_read_as_its_thumbnail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=r"beitcli\[raw\]") as caught:
        pixels(dng(preview()))
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        (b"FUJIFILMCCD-RAW 0201", "Fujifilm RAF"),
        (b"II*\0\x10\0\0\0CR\2\0", "Canon CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "Canon CR3"),
        (b"II\x1a\0\0\0HEAPCCDR", "Canon CRW"),
        (b"IIU\0\x18\0\0\0", "Panasonic RW2"),
        (b"IIRO\x08\0\0\0", "Olympus ORF"),
        (b"FOVb\1\0\2\0", "Sigma X3F"),
        (b"\0MRM\0\0\0\x10", "Minolta MRW"),
    ],
)
@pytest.mark.parametrize("extra", [True, False], ids=["with the extra", "without"])
def test_kinds_are_recognised_by_their_markers(
    monkeypatch: pytest.MonkeyPatch, prefix: bytes, kind: str, extra: bool
) -> None:
    """Files without a preview are unsupported."""
    if extra:
        pytest.importorskip("rawpy")
    else:
        monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(ImageError, match=kind) as caught:
        pixels(prefix.ljust(4000, b"\0"))
    assert caught.value.code == "unsupported"
