"""The supported layouts of TIFF, as a table, and the page of a file."""

import itertools
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from beitcli.errors import ImageError
from beitcli.inputs.decoders.tiff_tags import Directory, first_full_directory, size_of

FAX, OLD_JPEG, JPEG = (2, 3, 4), 6, 7
_PREDICTED = (5, 8, 32946, 34925, 50000)
_LOSSLESS = (1, 32773, *_PREDICTED)

COMPRESSIONS = {
    1: "no", 2: "CCITT", 3: "CCITT group 3", 4: "CCITT group 4", 5: "LZW", 6: "old-style JPEG", 7: "JPEG",
    8: "deflate", 9: "JBIG", 10: "JBIG", 32766: "NeXT", 32771: "word-aligned", 32773: "PackBits",
    32809: "ThunderScan", 32946: "deflate", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000",
    33007: "JPEG", 34661: "JBIG", 34676: "SGI LogLuv", 34677: "SGI LogLuv", 34712: "JPEG 2000", 34713: "Nikon NEF",
    34887: "LERC", 34892: "lossy JPEG (DNG)", 34925: "LZMA", 34926: "Zstandard", 34927: "WebP", 34933: "PNG",
    34934: "JPEG XR", 22610: "JPEG XR", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
"""The name of each compression, for messages."""

COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Samples of each photometric interpretation."""

PHOTOMETRICS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "L*a*b*", 9: "ICC L*a*b*",
    10: "ITU L*a*b*", 32803: "camera raw (CFA)", 34892: "camera raw (linear)", 32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
"""The name of each photometric interpretation, for messages."""

_KINDS = {1: "unsigned", 2: "signed", 3: "float"}


class Row(NamedTuple):
    """Supported layouts: every combination of the values, in both byte orders."""

    name: str
    photometrics: tuple[int, ...]
    kind: str
    bits: tuple[int, ...]
    compressions: tuple[int, ...]
    predictor: int
    planars: tuple[int, ...]
    tiled: tuple[bool, ...]


_BOTH = ((1, 2), (False, True))
TABLE = (
    Row("small grey", (0, 1), "unsigned", (1, 2, 4, 12), _LOSSLESS, 1, *_BOTH),
    Row("grey", (0, 1), "unsigned", (8, 16, 32, 64), _LOSSLESS, 1, *_BOTH),
    Row("grey differences", (0, 1), "unsigned", (8, 16, 32, 64), _PREDICTED, 2, *_BOTH),
    Row("signed grey", (0, 1), "signed", (8, 16, 32, 64), _LOSSLESS, 1, *_BOTH),
    Row("signed grey differences", (0, 1), "signed", (8, 16, 32, 64), _PREDICTED, 2, *_BOTH),
    Row("float grey", (0, 1), "float", (16, 32, 64), _LOSSLESS, 1, *_BOTH),
    Row("float grey differences", (0, 1), "float", (16, 32, 64), _PREDICTED, 3, *_BOTH),
    Row("RGB", (2,), "unsigned", (8, 16, 32), _LOSSLESS, 1, *_BOTH),
    Row("RGB differences", (2,), "unsigned", (8, 16, 32), _PREDICTED, 2, *_BOTH),
    Row("float RGB", (2,), "float", (16, 32, 64), _LOSSLESS, 1, *_BOTH),
    Row("float RGB differences", (2,), "float", (16, 32, 64), _PREDICTED, 3, *_BOTH),
    Row("small palette", (3,), "unsigned", (1, 2, 4), _LOSSLESS, 1, *_BOTH),
    Row("palette", (3,), "unsigned", (8,), _LOSSLESS, 1, *_BOTH),
    Row("palette differences", (3,), "unsigned", (8,), _PREDICTED, 2, *_BOTH),
    Row("CMYK", (5,), "unsigned", (8, 16), _LOSSLESS, 1, *_BOTH),
    Row("CMYK differences", (5,), "unsigned", (8, 16), _PREDICTED, 2, *_BOTH),
    Row("YCbCr", (6,), "unsigned", (8,), _LOSSLESS, 1, *_BOTH),
    Row("YCbCr differences", (6,), "unsigned", (8,), _PREDICTED, 2, *_BOTH),
    Row("L*a*b*", (8,), "unsigned", (8,), _LOSSLESS, 1, *_BOTH),
    Row("L*a*b* differences", (8,), "unsigned", (8,), _PREDICTED, 2, *_BOTH),
    Row("fax", (0, 1), "unsigned", (1,), FAX, 1, (1,), (False,)),
    Row("JPEG, grey, RGB or CMYK", (0, 1, 2, 5), "unsigned", (8,), (JPEG,), 1, *_BOTH),
    Row("JPEG, YCbCr", (6,), "unsigned", (8,), (JPEG,), 1, (1,), (False, True)),
    Row("old-style JPEG", (1, 6), "unsigned", (8,), (OLD_JPEG,), 1, (1,), (False,)),
)
"""All supported layouts. tests/inputs/test_tiff.py compares every row with other decoders."""


class Part(NamedTuple):
    """Offset and size in bytes of one strip or tile."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Page:
    """The image of a TIFF, as its tags describe it; `width` and `height` are as stored, not upright."""

    directory: Directory
    width: int
    height: int
    bits: int
    kind: str
    samples: int
    photometric: int
    planar: int
    compression: int
    predictor: int
    tiled: bool
    part_width: int
    part_height: int
    extras: tuple[int, ...]

    @property
    def stream(self) -> BinaryIO:
        """The file."""
        return self.directory.stream

    @property
    def mirrored(self) -> bool:
        """True if each byte's lowest bit comes first (FillOrder 2)."""
        return self.directory.integer(266, 1) == 2

    @property
    def across(self) -> int:
        """The number of tiles in a row of them; 1 for strips."""
        return -(-self.width // self.part_width)

    @property
    def down(self) -> int:
        """The number of strips, or of rows of tiles."""
        return -(-self.height // self.part_height)

    @property
    def decoded_bytes(self) -> int:
        """The bytes of all samples, those of tiles that reach beyond the image included."""
        rows = self.part_height * self.down if self.tiled else self.height
        return self.across * self.row_bytes * rows * (1 if self.planar == 1 else len(self.planes))

    @property
    def row_bytes(self) -> int:
        """The bytes of one row of a strip or tile."""
        return -(-self.part_width * self.bits * (self.samples if self.planar == 1 else 1) // 8)

    @property
    def alpha(self) -> int | None:
        """The index of the opacity sample, if there is one."""
        places = [place for place, extra in enumerate(self.extras) if extra in (1, 2)]
        return self.samples - len(self.extras) + places[0] if places else None

    @property
    def premultiplied(self) -> bool:
        """True if the colours were multiplied by the opacity already."""
        return next((extra for extra in self.extras if extra in (1, 2)), 0) == 1

    @property
    def planes(self) -> list[int]:
        """The planes of the image: colours, then opacity; only 0 where the samples are interleaved."""
        if self.planar == 1:
            return [0]
        return [*range(COLOURS[self.photometric]), *([] if self.alpha is None else [self.alpha])]

    @property
    def row(self) -> Row | None:
        """The table's row that has this layout."""
        for row in TABLE:
            if (
                self.photometric in row.photometrics
                and (self.kind, self.predictor) == (row.kind, row.predictor)
                and self.bits in row.bits
                and self.compression in row.compressions
                and self.planar in row.planars
                and self.tiled in row.tiled
            ):
                return row
        return None

    def rows_of(self, part: int) -> int:
        """The rows of a strip or tile; the last strip may have fewer."""
        return self.part_height if self.tiled else min(self.part_height, self.height - part * self.part_height)

    def parts(self, plane: int = 0) -> list[Part]:
        """The strips or tiles of a plane, row by row; raises ImageError where one is missing, empty or cut."""
        offsets = self.directory.integers(324 if self.tiled else 273)
        counts = self.directory.integers(325 if self.tiled else 279)
        number = self.across * self.down
        first, name = plane * number, "tile" if self.tiled else "strip"
        if len(offsets) < first + number:
            raise ImageError("truncated", f"the TIFF names {len(offsets)} {name}s of {first + number} and more")
        whole = size_of(self.stream)
        parts = []
        for index in range(first, first + number):
            full = self.row_bytes * self.rows_of(index - first)
            least = full if self.compression == 1 else 1
            missing = full if self.compression == 1 else whole - offsets[index]  # old writers omit the counts
            size = counts[index] if index < len(counts) else missing
            if size == 0 and number == 1:  # not recorded, which libtiff repairs too
                size = missing
            if self.compression == 1:
                size = min(size, full)
            if offsets[index] <= 0 or size <= 0:
                raise ImageError("truncated", f"the TIFF's {name} {index + 1} was never written")
            if size < least or offsets[index] + size > whole:
                raise ImageError("truncated", f"the TIFF's {name} {index + 1} is cut short")
            parts.append(Part(offsets[index], size))
        return parts


def first_page(stream: BinaryIO) -> Page:
    """The first full image of a TIFF, its tags only; raises ImageError for a layout that is not in the table."""
    directory = first_full_directory(stream)
    compression = directory.integer(259, 1)
    name = COMPRESSIONS.get(compression, f"unknown ({compression})")
    if 0xBC01 in directory.entries:
        raise ImageError("unsupported", "TIFF with JPEG XR compression is not opened")
    if not any(compression in row.compressions for row in TABLE):
        raise ImageError("unsupported", f"TIFF with {name} compression is not opened")
    page = _page(directory, compression)
    reason = _refusal(page)
    if reason:
        raise ImageError("unsupported", f"TIFF of {reason} is not opened")
    for plane in page.planes:
        page.parts(plane)
    return page


def _page(directory: Directory, compression: int) -> Page:
    if not {256, 257} <= directory.entries.keys():
        raise ImageError("corrupt", "the TIFF does not say how large its image is")
    width, height = directory.integer(256, 0), directory.integer(257, 0)
    tiled = 324 in directory.entries and 273 not in directory.entries
    part_width, part_height = (
        (directory.integer(322, 0), directory.integer(323, 0)) if tiled else (width, directory.integer(278, height))
    )
    if not tiled:
        part_height = min(part_height or height, height)
    if min(width, height, part_width, part_height) < 1:
        raise ImageError("corrupt", "the TIFF's image or its tiles have no size")
    photometric = _photometric(directory, compression)
    samples = directory.integer(277, COLOURS.get(photometric, 3) if compression == OLD_JPEG else 1)
    bits = directory.integers(258, (1,))[: max(samples, 1)]
    formats = directory.integers(339, (1,))[: max(samples, 1)]
    if samples < 1 or len(set(bits)) > 1 or len(set(formats)) > 1:
        raise ImageError("unsupported", "TIFF whose samples differ in size or kind is not opened")
    colours = COLOURS.get(photometric, samples)
    extras = directory.integers(338, ())[-max(samples - colours, 0) :] if samples > colours else ()
    if photometric == 2 and samples == 4 and extras in ((), (999,)):  # as Pillow reads them, Corel Draw's too
        extras = (2,)
    return Page(
        directory=directory,
        width=width,
        height=height,
        bits=bits[0],
        kind=_KINDS.get(formats[0], "complex or unknown"),
        samples=samples,
        photometric=photometric,
        planar=2 if samples > 1 and directory.integer(284, 1) == 2 else 1,
        compression=compression,
        predictor=directory.integer(317, 1) if compression in _LOSSLESS else 1,
        tiled=tiled,
        part_width=part_width,
        part_height=part_height,
        extras=extras,
    )


def _photometric(directory: Directory, compression: int) -> int:
    """The photometric interpretation, or libtiff's default where there is none."""
    if 262 in directory.entries:
        return directory.integer(262, 0)
    if compression in FAX:
        return 0
    return {3: 2, 4: 2}.get(directory.integer(277, 1), 1)


def _refusal(page: Page) -> str | None:
    """A description of the layout if it is not supported."""
    kinds = PHOTOMETRICS.get(page.photometric, f"unknown colours ({page.photometric})")
    words = [f"{page.bits}-bit {page.kind}" if page.kind != "unsigned" else f"{page.bits}-bit"]
    words += ["planar"] * (page.planar != 1) + [kinds]
    tail = f" with {COMPRESSIONS[page.compression]} compression" + (", tiled" if page.tiled else "")
    tail += f", predictor {page.predictor}" if page.predictor != 1 else ""
    layout = " ".join(words) + tail
    if page.row is None or page.samples < COLOURS[page.photometric]:
        return layout
    if page.tiled and (page.part_width * page.bits) % 8:
        return f"{layout}, tiles of {page.part_width} columns"
    if page.compression in FAX and page.samples > 1:
        return f"{layout}, {page.samples} samples"
    if page.compression == JPEG and page.planar == 1 and page.samples > 4:
        return f"{layout}, {page.samples} samples"
    if page.alpha is not None:
        if page.kind != "unsigned" or page.bits not in (8, 16):
            return f"{layout} with transparency"
        if page.photometric == 0 or (page.premultiplied and page.photometric not in (1, 2)):
            return f"{layout} with transparency of its own kind"
    if page.photometric == 5 and page.directory.integer(332, 1) != 1:
        return f"{layout}, inks other than CMYK"
    return layout + ", subsampled or of its own range" if _unusual_ycbcr(page) else None


def _unusual_ycbcr(page: Page) -> bool:
    """True for YCbCr that is not JPEG's: other weights, another range, or fewer samples of chroma."""
    if page.photometric != 6 or page.compression in (JPEG, OLD_JPEG):
        return False
    get = page.directory.numbers
    usual = ((0.299, 0.587, 0.114), get(529, (0.299, 0.587, 0.114))), ((0, 255, 128, 255, 128, 255), get(532, ()))
    pairs = itertools.chain.from_iterable(zip(a, b, strict=False) for a, b in usual)
    return page.directory.integers(530, (2, 2)) != (1, 1) or any(abs(a - b) > 0.002 for a, b in pairs)
