"""TIFF: every layout that is read, against tifffile and imagecodecs; the rest is `unsupported`, damage is an error."""

import functools
import io
import itertools
import random
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from beitcli.errors import ImageError
from beitcli.inputs import decode as decoding
from beitcli.inputs.decode import Decoding
from beitcli.inputs.decoders import tiff
from beitcli.inputs.decoders.tiff_layout import TABLE, first_page

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tifffile

FIELD = Path(__file__).parent.parent / "field"
WIDTH, HEIGHT = 37, 29
COLOURS = {"miniswhite": 1, "minisblack": 1, "rgb": 3, "palette": 1, "separated": 4, "ycbcr": 3, "cielab": 3}
PREDICTED = ("lzw", "zlib", "zstd", "lzma")
LOSSLESS = ("none", "packbits", "deflate", *PREDICTED)


class Case(NamedTuple):
    """A TIFF of the lattice."""

    photometric: str
    dtype: str
    compression: str = "none"
    predictor: bool = False
    order: str = "<"
    tiled: bool = False
    extras: tuple[str, ...] = ()
    planar: bool = False
    big: bool = False
    span: float = 1.0

    def values(self) -> np.ndarray:
        """Noise over the whole range of the type, the same for the same case."""
        shape = HEIGHT, WIDTH, COLOURS[self.photometric] + len(self.extras)
        rng = np.random.default_rng(list(repr(self).encode()))
        dtype = np.dtype(self.dtype)
        if dtype.kind in "fc":
            return (rng.random(shape) * self.span).astype(dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, shape).astype(bool)
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        if self.extras == ("assocalpha",):
            colours = values[..., :-1] * (values[..., -1:] / limits.max)
            values[..., :-1] = colours.astype(dtype)
        return values

    def file(self) -> bytes:
        """The TIFF as tifffile writes it."""
        values = self.values()
        if self.planar:
            values = np.ascontiguousarray(values.transpose(2, 0, 1))
        elif values.shape[2] == 1:
            values = values[..., 0]
        options: dict[str, Any] = {"tile": (16, 32)} if self.tiled else {"rowsperstrip": 8}
        if values.ndim == 3:
            options["planarconfig"] = "separate" if self.planar else "contig"
        if self.photometric == "palette":
            options["colormap"] = np.random.default_rng(3).integers(0, 65536, (3, 256), dtype=np.uint16)
        if self.photometric == "ycbcr" and self.compression != "jpeg":
            options["subsampling"] = (1, 1)
        stream = io.BytesIO()
        with tifffile.TiffWriter(stream, bigtiff=self.big, byteorder=">" if self.order == ">" else "<") as writer:
            writer.write(
                values,
                photometric=self.photometric,
                compression=None if self.compression == "none" else self.compression,
                predictor=self.predictor,
                extrasamples=self.extras or None,
                metadata=None,
                **options,
            )
        return stream.getvalue()


def lattice() -> Iterator[Case]:
    """All cases for tifffile to write."""
    ways = [(name, step) for name in LOSSLESS for step in ((False, True) if name in PREDICTED else (False,))]
    ends = [(order, tiled) for order in "<>" for tiled in (False, True)]
    for dtype, photometric in itertools.product(
        ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"), ("miniswhite", "minisblack")
    ):
        for way, end in itertools.product(ways, ends):
            if photometric == "minisblack" or end == (">", False):
                yield Case(photometric, dtype, *way, *end, span=300.0 if end[1] and dtype != "f2" else 1.0)
    coloured = [("rgb", dtype) for dtype in ("u1", "u2", "u4", "f2", "f4", "f8")]
    coloured += [("separated", "u1"), ("separated", "u2"), ("ycbcr", "u1"), ("cielab", "u1")]
    for (photometric, dtype), way, end, planar in itertools.product(coloured, ways, ends, (False, True)):
        if way[0] in ("none", "lzw", "zlib") or end in (("<", False), (">", True)):
            yield Case(photometric, dtype, *way, *end, planar=planar)
    for way, end in itertools.product(ways, ends):
        yield Case("palette", "u1", *way, *end)
    for extras, dtype, photometric, planar, end in itertools.product(
        (
            ("assocalpha",),
            ("unassalpha",),
            ("unspecified",),
            ("unspecified", "unspecified"),
            ("unassalpha", "unspecified"),
        ),
        ("u1", "u2", "u4", "f4", "i2"),
        ("minisblack", "rgb", "separated", "miniswhite"),
        (False, True),
        ends,
    ):
        yield Case(photometric, dtype, "zlib" if end[1] else "none", end[1], *end, extras=extras, planar=planar)
    for photometric, planar, end in itertools.product(("minisblack", "rgb", "ycbcr"), (False, True), ends):
        yield Case(photometric, "u1", "jpeg", False, *end, planar=planar)
    for photometric, dtype, end in itertools.product(("minisblack", "rgb"), ("bool", "c8", "u2", "f4"), ends):
        yield Case(photometric, dtype, "none", False, *end, big=True)
    for compression, dtype in itertools.product(("jpeg2000", "jpegxl", "lerc", "webp", "png", "jpegxr"), ("u1", "u2")):
        yield Case("rgb", dtype, compression)


def levels(values: np.ndarray, bits: int) -> np.ndarray:
    """Grey levels by the contract, not rounded."""
    exact = values.astype(np.float64)
    if values.dtype.kind == "f":
        whole = bool((exact >= 0).all() and (exact <= 1).all())
        low, high = (0.0, 1.0) if whole else (exact.min(), exact.max())
    elif values.dtype.kind in "ub" and bits <= 16:
        low, high = 0.0, 2.0**bits - 1
    else:
        low, high = (0.0, 65535.0) if exact.min() >= 0 and exact.max() <= 65535 else (exact.min(), exact.max())
    return (exact - low) * (255 / (high - low))


def reference(data: bytes) -> np.ndarray:
    """The image over white, (height, width, 3), as tifffile reads the samples."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        values = page.asarray()
        if page.samplesperpixel == 1:
            values = values[..., None]
        elif page.planarconfig == 2:
            values = np.moveaxis(values, 0, 2)
        name, extras = tifffile.PHOTOMETRIC(page.photometric).name, [int(extra) for extra in page.extrasamples or ()]
        jpeg, palette, bits = page.compression in (6, 7), page.colormap, page.bitspersample
    count = values.shape[2] - len(extras)
    if name == "PALETTE":
        assert palette is not None
        return palette[:, values[..., 0].astype(int)].transpose(1, 2, 0) / 257
    colours = levels(values[..., : 1 if name.startswith("MINIS") else count], bits)
    if name == "MINISWHITE":
        colours = 255 - colours
    if name == "SEPARATED":
        colours = (255 - colours[..., :3]) * (255 - colours[..., 3:]) / 255
    elif name == "YCBCR" and not jpeg:
        luma, blue, red = np.moveaxis(colours, 2, 0)
        blue, red = blue - 128, red - 128
        rgb = luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue
        colours = np.clip(np.stack(rgb, 2), 0, 255)
    elif name == "CIELAB":
        colours = np.asarray(Image.frombytes("LAB", values.shape[1::-1], values.tobytes()).convert("RGB"))
    for place, kind in enumerate(extras):
        if kind in (1, 2):
            alpha = levels(values[..., count + place, None], bits) / 255
            colours = colours * (alpha if kind == 2 else 1) + 255 * (1 - alpha)
            break
    return np.broadcast_to(np.clip(colours, 0, 255), (*values.shape[:2], 3))


def decode(data: bytes, limits: Decoding | None = None) -> np.ndarray:
    return np.asarray(decoding.decode(io.BytesIO(data), limits or Decoding(seconds=0), nullcontext())).astype(int)


def outcome(data: bytes) -> tuple[str, str]:
    """`ok`, `wrong` or the failure's code, and the table's row or the failure's message."""
    try:
        pixels = decode(data)
    except ImageError as error:
        return error.code, str(error)
    row = first_page(io.BytesIO(data)).row
    assert row is not None
    expected = reference(data)
    same = pixels.shape == expected.shape and np.abs(pixels - expected).max() <= 1.0 + 1e-6
    return (
        "ok"
        if same
        else f"wrong by {np.abs(pixels - expected).max() if pixels.shape == expected.shape else expected.shape}",
        row.name,
    )


def built(
    order: str, pages: Sequence[dict[int, tuple[str, Sequence[float]]]], parts: Sequence[bytes], big: bool = False
) -> bytes:
    """A TIFF made by hand: tags of each page as `struct` types and values; `"@"` is the place of a part."""
    data = b"".join(parts)
    starts = [(16 if big else 8) + sum(map(len, parts[:number])) for number in range(len(parts))]
    kinds = {"B": 1, "s": 2, "H": 3, "I": 4, "II": 5, "b": 6, "7": 7, "Q": 16}
    word, head, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    place = (16 if big else 8) + len(data)
    first, body = place, b""
    for number, tags in enumerate(pages):
        directory, beyond = struct.pack(order + head, len(tags)), b""
        after = place + len(directory) + len(tags) * (12 if not big else 20) + inline
        for tag, (code, values) in sorted(tags.items()):
            if code == "@":
                code, values = "I", [starts[int(part)] for part in values]
            plain = {"s": "B", "7": "B", "II": "I"}.get(code, code)
            content = struct.pack(f"{order}{len(values)}{plain}", *values)
            count = len(values) // len(code)
            if len(content) > inline:
                content, beyond = struct.pack(order + word, after + len(beyond)), beyond + content
            directory += struct.pack(f"{order}HH{word}", tag, kinds[code], count) + content.ljust(inline, b"\0")
        place = after + len(beyond)
        following = place if number + 1 < len(pages) else 0
        body += directory + struct.pack(order + word, following) + beyond
    mark = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    return mark + (struct.pack(order + "HHQ", 8, 0, first) if big else struct.pack(order + "I", first)) + data + body


def page(
    size: tuple[int, int] = (4, 2),
    parts: Sequence[int] = (0,),
    counts: Sequence[int] = (8,),
    **more: tuple[str, Sequence[float]],
) -> dict[int, tuple[str, Sequence[float]]]:
    """The tags of an 8-bit grey page; `t259=("H", [5])` and the like add to them or replace them."""
    whole = zip((256, 257, 278, 279), (size[:1], size[1:], size[1:], counts), strict=True)
    tags: dict[int, tuple[str, Sequence[float]]] = {tag: ("I", values) for tag, values in whole}
    tags |= {273: ("@", parts), **{tag: ("H", [value]) for tag, value in ((258, 8), (259, 1), (262, 1), (277, 1))}}
    return tags | {int(name[1:]): entry for name, entry in more.items()}


def small(bits: int, order: str, photometric: int, tiled: bool, planar: bool, fill: int) -> bytes:
    """A TIFF of fewer than 8 bits, or of 12, which tifffile reads but does not write."""
    rng = np.random.default_rng(bits)
    shape = (32, 48) if tiled else (HEIGHT, WIDTH)
    samples = 2 if planar else 1
    parts = []
    for _ in range(samples):
        values = rng.integers(0, 1 << bits, shape)
        cut = [values[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16, 32)] if tiled else [values]
        for piece in cut:
            digits = (piece[..., None] >> np.arange(bits - 1, -1, -1)) & 1
            rows = np.packbits(digits.reshape(len(piece), -1), axis=1, bitorder="big" if fill == 1 else "little")
            parts.append(rows.tobytes())
    tags = page((WIDTH, HEIGHT), range(len(parts)), [len(part) for part in parts])
    tags |= {258: ("H", [bits] * samples), 262: ("H", [photometric]), 266: ("H", [fill]), 277: ("H", [samples])}
    if planar:
        tags |= {284: ("H", [2]), 338: ("H", [0])}
    if photometric == 3:
        tags[320] = "H", rng.integers(0, 65536, 3 << bits).tolist()
    if tiled:
        tags |= {322: ("I", [16]), 323: ("I", [16]), 324: tags.pop(273), 325: tags.pop(279)}
        tags.pop(278)
    return built(order, [tags], parts)


def fax(compression: str, size: int) -> bytes:
    stream = io.BytesIO()
    bits = np.random.default_rng(size).random((size, size + 9)) < 0.2
    Image.fromarray(bits).save(stream, "TIFF", compression=compression)
    return stream.getvalue()


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    colours = np.add.outer(np.arange(40) * 4, np.arange(48) * 2)[..., None] + [0, 20, 40]
    Image.fromarray(colours.astype(np.uint8)).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def old_jpeg(data: bytes) -> bytes:
    tags = page((48, 40), [0], [len(data)], t259=("H", [6]), t262=("H", [6]), t277=("H", [3]), t258=("H", [8, 8, 8]))
    return built("<", [{**tags, 513: ("@", [0]), 514: ("I", [len(data)])}], [data])


def cmyk_jpeg() -> bytes:
    data = jpeg("CMYK", quality=100)
    tags = page((48, 40), [0], [len(data)], t259=("H", [7]), t262=("H", [5]), t277=("H", [4]), t258=("H", [8] * 4))
    return built(">", [tags], [data])


@functools.cache
def outcomes() -> dict[str, tuple[str, str]]:
    """Results of every file of the lattice."""
    found: dict[str, tuple[str, str]] = {}
    for case in lattice():
        try:
            data = case.file()
        except (ValueError, NotImplementedError, KeyError, TypeError):  # tifffile writes no such file
            continue
        found[repr(case)] = outcome(data)
    for bits, order, photometric, tiled, planar, fill in itertools.product(
        (1, 2, 4, 12), "<>", (0, 1, 3), (False, True), (False, True), (1, 2)
    ):
        if photometric != 3 or bits < 8:
            data = small(bits, order, photometric, tiled, planar, fill)
            found[f"{(bits, order, photometric, tiled, planar, fill)}"] = outcome(data)
    for compression, size in itertools.product(("tiff_ccitt", "group3", "group4"), (16, 41, 300)):
        found[f"{compression}, {size}"] = outcome(fax(compression, size))
    found["old-style JPEG"] = outcome(old_jpeg(jpeg()))
    found["CMYK JPEG"] = outcome(cmyk_jpeg())
    return found


def test_every_layout_is_read_correctly_or_unsupported() -> None:
    found = outcomes()
    wrong = {name: result for name, result in found.items() if result[0] not in ("ok", "unsupported")}
    assert not wrong
    read = [name for name, result in found.items() if result[0] == "ok"]
    assert len(found) >= 1200
    assert len(read) >= 900


@pytest.mark.parametrize("row", [row.name for row in TABLE])
def test_every_row_of_the_table_is_tested(row: str) -> None:
    assert ("ok", row) in outcomes().values()


FIELD_TIFFS = {
    "planar16-None-le.tif": "RGB",
    "float32-be-zlib.tif": "float grey",
    "int32-be-lzw.tif": "signed grey",
    "int8.tif": "signed grey",
    "uint32.tif": "grey",
}


@pytest.mark.parametrize("name", FIELD_TIFFS)
def test_field_files_that_pillow_misreads(name: str) -> None:
    assert outcome((FIELD / name).read_bytes()) == ("ok", FIELD_TIFFS[name])


def test_planes_of_16_bits_give_the_pixels_of_the_reference() -> None:
    expected = np.asarray(Image.open(FIELD / "planar16-reference.png").convert("RGB")).astype(int)
    assert np.abs(decode((FIELD / "planar16-None-le.tif").read_bytes()) - expected).max() <= 1


def failure(data: bytes) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert str(caught.value).isprintable()
    return caught.value.code, str(caught.value)


def test_strips_that_were_never_written_are_an_error() -> None:
    assert failure((FIELD / "sparse-half.tif").read_bytes()) == ("truncated", "the TIFF's strip 5 was never written")
    assert failure(built("<", [page() | {273: ("I", [0])}], [bytes(8)]))[0] == "truncated"


def test_a_single_strip_whose_size_was_never_written_is_read() -> None:
    np.testing.assert_array_equal(
        decode(built("<", [page() | {279: ("I", [0])}], [GREYS])), decode(built("<", [page()], [GREYS]))
    )


@pytest.mark.parametrize("tags", [{322: 48_000, 323: 48_000}, {277: 3000}], ids=["huge tiles", "many samples"])
def test_gigabytes_of_samples_are_too_large(tags: dict[int, int]) -> None:
    side = 16 if 322 in tags else 1000
    pages = page(t256=("I", [side]), t257=("I", [side]), t278=("I", [side]), t259=("H", [8])) | {
        tag: ("I", [value]) for tag, value in tags.items()
    }
    if 322 in tags:
        pages |= {324: pages.pop(273), 325: pages.pop(279)}
    code, _ = failure(built("<", [pages], [bytes(8)]))
    assert code == "too_large"


@pytest.mark.parametrize(
    ("compression", "name"),
    [(34712, "JPEG 2000"), (34887, "LERC"), (50002, "JPEG XL"), (52546, "JPEG XL"), (50001, "WebP"), (9999, "9999")],
)
def test_other_compressions_are_named(compression: int, name: str) -> None:
    code, message = failure(built(">", [page(t259=("H", [compression]))], [bytes(8)]))
    assert (code, name in message) == ("unsupported", True)
    assert failure((FIELD / "rgb8-lerc.tif").read_bytes()) == (
        "unsupported",
        "TIFF with LERC compression is not opened",
    )


GREYS = bytes(range(0, 256, 32))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize("small_page", [{254: ("I", [1])}, {255: ("H", [2])}, {254: ("I", [4])}])
def test_the_first_full_page_is_taken(
    order: str, big: bool, small_page: dict[int, tuple[str, Sequence[float]]]
) -> None:
    reduced = page((1, 1), [0], [1]) | small_page
    full = page((4, 2), [1], [8])
    data = built(order, [reduced, reduced, full, page((1, 1), [0], [1])], [b"\7", GREYS], big)
    np.testing.assert_array_equal(decode(data)[..., 0].ravel(), [*GREYS])
    assert decode(built(order, [reduced], [b"\7"], big)).tolist() == [[[7, 7, 7]]]
    assert decode(built(order, [full, reduced], [b"\7", GREYS], big)).shape == (2, 4, 3)
    odd = reduced | {259: ("H", [34712])}
    assert decode(built(order, [odd, full], [b"\7", GREYS], big)).shape == (2, 4, 3)


def test_the_limit_applies_to_the_page_that_is_read() -> None:
    data = built("<", [page((1, 1), [0], [1], t254=("I", [1])), page((4, 2), [1], [8])], [b"\7", GREYS])
    assert decode(data, Decoding(max_pixels=8, seconds=0)).shape == (2, 4, 3)
    with pytest.raises(ImageError) as caught:
        decode(data, Decoding(max_pixels=7, seconds=0))
    assert caught.value.code == "too_large"


def test_samples_of_many_bytes_count_as_one_pixel() -> None:
    assert decode(Case("rgb", "f8").file(), Decoding(max_pixels=WIDTH * HEIGHT, seconds=0)).shape == (HEIGHT, WIDTH, 3)


BROKEN_NOTES: dict[str, dict[int, tuple[str, Sequence[float]]]] = {
    "text beyond the end": {270: ("s", [65] * 99)},
    "an ICC profile that is none": {34675: ("7", [1, 2, 3])},
    "XMP that is none": {700: ("B", [255] * 9)},
    "XMP of numbers": {700: ("H", [1, 2, 3])},
    "a resolution of text": {282: ("s", [65] * 5), 283: ("s", [66] * 5), 296: ("H", [3])},
    "a resolution of 1/0": {282: ("II", [1, 0]), 283: ("II", [0, 0])},
    "EXIF beyond the end": {34665: ("I", [1 << 30])},
    "EXIF that is a loop": {34665: ("I", [8])},
    "an orientation of text": {274: ("s", [65, 66, 67])},
    "an orientation out of range": {274: ("H", [99])},
    "software of an unknown type": {305: ("b", [1])},
}


@pytest.mark.parametrize("name", BROKEN_NOTES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, 8])
def test_broken_notes_are_ignored(name: str, order: str, compression: int) -> None:
    part = zlib.compress(GREYS) if compression == 8 else GREYS
    data = built(order, [page((4, 2), [0], [len(part)], t259=("H", [compression])) | BROKEN_NOTES[name]], [part])
    if "beyond" in name:
        place = data.find(b"A" * 99)
        data = data.replace(struct.pack(order + "I", place), struct.pack(order + "I", 1 << 30)) if place > 0 else data
    np.testing.assert_array_equal(decode(data)[..., 0].ravel(), [*GREYS])


@pytest.mark.parametrize(("orientation", "corner"), [(1, 0), (2, 3), (3, 7), (4, 4), (5, 0), (6, 4), (7, 7), (8, 3)])
def test_the_image_is_upright(orientation: int, corner: int) -> None:
    image = decode(built("<", [page(t274=("H", [orientation]))], [GREYS]))
    assert image.shape == ((2, 4, 3) if orientation < 5 else (4, 2, 3))
    assert image[0, 0, 0] == GREYS[corner]


def test_old_style_jpeg_is_whole_or_an_error() -> None:
    data = old_jpeg(jpeg())
    assert decode(data).shape == (40, 48, 3)
    stream = jpeg()
    for share in (0.3, 0.6, 0.9):
        cut = old_jpeg(stream)[: 8 + int(len(stream) * share)]
        assert failure(cut)[0] == "truncated"
    moved = page((48, 40), [0], [len(stream)], t259=("H", [6]), t262=("H", [6]), t277=("H", [3]), t258=("H", [8] * 3))
    ahead = struct.pack("<2sHI", b"II", 42, 8) + built("<", [moved | {273: ("I", [300]), 513: ("I", [300])}], [b""])[8:]
    whole = ahead.ljust(300, b"\0") + stream
    assert decode(whole).shape == (40, 48, 3)
    for share in (0.3, 0.6, 0.99):
        assert failure(whole[: 300 + int(len(stream) * share)])[0] == "truncated"
    pieces = old_jpeg(stream[:300] + stream[300:].replace(b"\xff\xda", b"\xff\xfe"))
    assert failure(pieces)[0] in ("unsupported", "corrupt")


def test_jpeg_streams_are_whole_files() -> None:
    jpegs = Case("rgb", "u1", "jpeg")
    for case in (jpegs, jpegs._replace(photometric="ycbcr"), jpegs._replace(tiled=True), jpegs._replace(planar=True)):
        read = first_page(io.BytesIO(case.file()))
        found = [*tiff.jpeg_streams(read)]
        assert len(found) == read.across * read.down * len(read.planes) > 1
        for data in found:
            Image.open(io.BytesIO(data)).load()
    (only,) = tiff.jpeg_streams(first_page(io.BytesIO(old_jpeg(jpeg()))))
    assert only == jpeg()


@pytest.mark.parametrize("size", [(48, 32), (40, 40)])
def test_jpeg_of_another_size_than_its_strip_is_an_error(size: tuple[int, int]) -> None:
    data = jpeg("L")
    tags = page((48, 40), [0], [len(data)], t259=("H", [7]))
    assert decode(built("<", [tags], [data])).shape == (40, 48, 3)
    assert failure(built("<", [tags | {256: ("I", [size[0] + 8]), 257: ("I", [size[1] + 80])}], [data]))[0] in (
        "corrupt",
        "truncated",
    )


def strip(compression: int) -> bytes:
    """A strip of 64 × 64 samples of grey, compressed."""
    stream = io.BytesIO()
    values = np.add.outer(np.arange(64), np.arange(64) ** 2 % 61).astype(np.uint8)
    tifffile.imwrite(stream, values, compression=compression, rowsperstrip=64, metadata=None)
    found = first_page(stream).parts()[0]
    return stream.getvalue()[found.offset : found.offset + found.size]


@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 34925, 50000])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_strip_that_is_cut_is_an_error(compression: int, order: str) -> None:
    data = strip(compression)
    tags = page((64, 64), [0], [len(data)], t259=("H", [compression]))
    assert decode(built(order, [tags], [data])).shape == (64, 64, 3)
    for share in (0.1, 0.5, 0.9):
        kept = int(len(data) * share)
        short = tags | {279: ("I", [kept])}
        assert failure(built(order, [short], [data[:kept]]))[0] in ("truncated", "corrupt")
        assert failure(built(order, [tags | {273: ("I", [1 << 20])}], [data]))[0] == "truncated"


@pytest.mark.parametrize("compression", [8, 32946, 34925])
def test_a_checksum_that_is_wrong_is_an_error(compression: int) -> None:
    data = strip(8 if compression == 32946 else compression)
    tags = page((64, 64), [0], [len(data)], t259=("H", [compression]))
    rng = random.Random(compression)
    for _ in range(40):
        broken = bytearray(data)
        broken[rng.randrange(8, len(data) - 12)] ^= 1 << rng.randrange(8)
        try:
            pixels = decode(built("<", [tags], [bytes(broken)]))
        except ImageError:
            continue
        np.testing.assert_array_equal(pixels, decode(built("<", [tags], [data])))


@pytest.mark.parametrize(("compression", "name"), [(2, "tiff_ccitt"), (3, "group3"), (4, "group4")])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_fax_that_is_cut_or_has_gaps_is_an_error(compression: int, name: str, mirrored: bool) -> None:
    file = fax(name, 200)
    found = first_page(io.BytesIO(file))
    (part,) = found.parts()
    data = file[part.offset : part.offset + part.size]

    def made(strip: bytes) -> bytes:
        strip = bytes(int(f"{byte:08b}"[::-1], 2) for byte in strip) if mirrored else strip
        more = {258: ("H", [1]), 259: ("H", [compression]), 266: ("H", [2 if mirrored else 1])}
        return built("<", [page((found.width, 200), [0], [len(strip)]) | more], [strip])

    expected = decode(file)
    np.testing.assert_array_equal(decode(made(data)), expected)
    np.testing.assert_array_equal(decode(made(data + bytes(9))), expected)
    for share in (0.2, 0.5, 0.9):
        kept = int(len(data) * share)
        assert failure(made(data[:kept]))[0] in ("truncated", "corrupt")
        assert failure(made(data[:kept].ljust(len(data), b"\0")))[0] in ("truncated", "corrupt")
    gap = data[: len(data) // 3] + bytes(len(data) // 3) + data[len(data) // 3 * 2 :]
    assert failure(made(gap))[0] in ("truncated", "corrupt")


def test_a_fax_without_its_end_is_read_if_no_row_is_missing() -> None:
    file = fax("group4", 200)
    found = first_page(io.BytesIO(file))
    (part,) = found.parts()
    bits = "".join(f"{byte:08b}" for byte in file[part.offset : part.offset + part.size])
    code = bits[: bits.rindex("000000000001000000000001")]
    data = bytes(int(code[place : place + 8].ljust(8, "0"), 2) for place in range(0, len(code), 8))
    more = {258: ("H", [1]), 259: ("H", [4])}
    whole = built("<", [page((found.width, 200), [0], [len(data)]) | more], [data])
    np.testing.assert_array_equal(decode(whole), decode(file))
    assert failure(whole.replace(data, data[:-3] + bytes(3)))[0] == "truncated"


@pytest.mark.parametrize("compression", [1, 5, 7, 8])
@pytest.mark.parametrize("case", [Case("rgb", "u1"), Case("rgb", "u2", tiled=True, planar=True, order=">")])
def test_a_file_that_is_cut_is_an_error(case: Case, compression: int) -> None:
    if compression == 7:
        case = Case("ycbcr", "u1", "jpeg")
    data = case._replace(compression={1: "none", 5: "lzw", 7: "jpeg", 8: "zlib"}[compression]).file()
    assert decode(data).shape == (HEIGHT, WIDTH, 3)
    for share in (0.02, 0.3, 0.6, 0.95):
        assert failure(data[: int(len(data) * share)])[0] in ("truncated", "corrupt", "not_an_image")


def test_damage_gives_an_image_or_a_code() -> None:
    rng = random.Random(4)
    for case in (
        Case("rgb", "u2", "lzw", True),
        Case("palette", "u1"),
        Case("rgb", "u1", "jpeg"),
        Case("minisblack", "f4"),
    ):
        data = case.file()
        for _ in range(60):
            broken = bytearray(data)
            for _ in range(rng.choice((1, 2, 6))):
                place = rng.randrange(len(broken))
                broken[place if rng.random() < 0.3 else max(place - place % 400, place % 400)] = rng.randrange(256)
            try:
                assert decode(bytes(broken), Decoding(100_000, 0)).shape[2] == 3
            except ImageError as error:
                assert error.code in (
                    "truncated",
                    "corrupt",
                    "unsupported",
                    "too_large",
                    "not_an_image",
                    "out_of_memory",
                )


def test_a_loop_of_reduced_pages_ends() -> None:
    data = built("<", [page((1, 1), [0], [1], t254=("I", [1]))] * 2, [b"\7"])
    first = struct.unpack("<I", data[4:8])[0]
    second = first + 2 + 12 * 10 + 4
    looped = data[: second + 2 + 12 * 10] + struct.pack("<I", first)
    assert decode(looped).tolist() == [[[7, 7, 7]]]
