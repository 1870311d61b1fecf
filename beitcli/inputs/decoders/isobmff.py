"""HEIF and AVIF: location of the coded data by the boxes (ISO/IEC 14496-12, 23008-12), and detection of lost parts.

libheif fills a tile that it cannot read, and pillow_heif drops its warning. AV1 and HEVC decoders read zeros as data.
Both can be detected by the boxes and by rules that valid coded data follows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from beitcli.errors import ImageError

_LOST = (bytes(128), b"\xff" * 64)
"""Content of lost sectors and erased memory. Longest runs that encoders wrote: 45 zeros (AV1), 4 bytes of 255."""

_FORBIDDEN = re.compile(rb"\0\0[\0-\2]")
"""Bytes that never stand in a NAL unit of HEVC, where a 3 is put between (ITU-T H.265, 7.4.2.2)."""


@dataclass
class _Items:
    """Properties of items by their number, from the `meta` box."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    extents: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # (start, end) in the file
    parts: dict[int, list[int]] = field(default_factory=dict)  # tiles of a grid, alpha of an image
    nal_length_size: int = 4


class _Reader:
    """Big-endian numbers from bytes, one after the other. Raises EOFError where they end."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0

    def bytes(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self.data):
            raise EOFError
        return bytes(self.data[self.at - size : self.at])

    def number(self, size: int) -> int:
        return int.from_bytes(self.bytes(size), "big")


def check(data: bytes) -> None:
    """Raise ImageError if coded data of the primary image lies beyond the end of the file or is invalid."""
    items = _Items()
    try:
        for kind, start, end in _boxes(data, 0, len(data)):
            if kind == b"meta":
                _read_meta(data, start + 4, end, items)
    except EOFError:
        raise ImageError("truncated", "the file ends within the boxes that describe the image") from None
    for item in _needed(items, items.primary, set()):
        _check_item(data, items, item)


def without_notes(data: bytes) -> bytes:
    """The same file with its EXIF and XMP hidden from the decoder: Pillow rejects an AVIF with broken ones.

    Its orientation is a property of the image, not of its EXIF (ISO/IEC 23000-22, 7.3.4.3).
    """
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            for inner, begin, stop in _boxes(data, start + 4, min(end, len(data))):
                if inner == b"iinf":
                    items = data[begin:stop].replace(b"Exif", b"free").replace(b"mime", b"free")
                    return data[:begin] + items + data[stop:]
    return data


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type of each box in this range, with start and end of its content; the last one may end beyond the range."""
    while start + 8 <= end:
        size, kind, header = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        if size == 0:
            size = end - start
        if size < header:
            return
        yield kind, start + header, start + size
        start += size


def _read_meta(data: bytes, start: int, end: int, items: _Items) -> None:
    if end > len(data):
        raise EOFError
    idat = 0
    boxes = {kind: (begin, stop) for kind, begin, stop in _boxes(data, start, end)}
    if b"idat" in boxes:
        idat = boxes[b"idat"][0]
    for kind, read in ((b"pitm", _read_primary), (b"iinf", _read_kinds), (b"iref", _read_references)):
        if kind in boxes:
            read(data, *boxes[kind], items)
    if b"iloc" in boxes:
        _read_locations(_Reader(memoryview(data)[slice(*boxes[b"iloc"])]), idat, items)
    if b"iprp" in boxes:
        _read_properties(data, *boxes[b"iprp"], items)


def _read_primary(data: bytes, start: int, end: int, items: _Items) -> None:
    reader = _Reader(memoryview(data)[start:end])
    version = reader.number(4) >> 24
    items.primary = reader.number(4 if version else 2)


def _read_kinds(data: bytes, start: int, end: int, items: _Items) -> None:
    version = data[start]
    for kind, begin, stop in _boxes(data, start + (8 if version else 6), end):
        reader = _Reader(memoryview(data)[begin:stop])
        version = reader.number(4) >> 24
        if kind == b"infe" and version >= 2:
            item = reader.number(4 if version > 2 else 2)
            reader.number(2)  # protection
            items.kinds[item] = reader.bytes(4)


def _read_references(data: bytes, start: int, end: int, items: _Items) -> None:
    size = 4 if data[start] else 2
    for kind, begin, stop in _boxes(data, start + 4, end):
        reader = _Reader(memoryview(data)[begin:stop])
        source = reader.number(size)
        targets = [reader.number(size) for _ in range(reader.number(2))]
        if kind == b"dimg":
            items.parts.setdefault(source, []).extend(targets)
        elif kind == b"auxl":
            for target in targets:
                items.parts.setdefault(target, []).append(source)


def _read_locations(reader: _Reader, idat: int, items: _Items) -> None:
    version = reader.number(4) >> 24
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(reader.number(4 if version == 2 else 2)):
        item = reader.number(4 if version == 2 else 2)
        construction = reader.number(2) & 15 if version else 0
        reader.number(2)  # data reference
        base = reader.number(base_size) + (idat if construction == 1 else 0)
        extents = []
        count = reader.number(2)
        for _ in range(count if offset_size or length_size else 1):  # else each is the whole file, and takes no byte
            if version and index_size:
                reader.number(index_size)
            start = base + reader.number(offset_size)
            extents.append((start, start + reader.number(length_size)))
        if construction < 2:  # 2: made of other items
            items.extents[item] = extents


def _read_properties(data: bytes, start: int, end: int, items: _Items) -> None:
    for kind, begin, stop in _boxes(data, start, end):
        if kind == b"ipco":
            for property_kind, place, limit in _boxes(data, begin, stop):
                if property_kind == b"hvcC" and limit - place > 21:
                    items.nal_length_size = (data[place + 21] & 3) + 1


def _needed(items: _Items, item: int, seen: set[int]) -> Iterator[int]:
    """The item and all items that its pixels are composed of."""
    if item in seen:
        return
    seen.add(item)
    yield item
    for part in items.parts.get(item, []):
        yield from _needed(items, part, seen)


def _check_item(data: bytes, items: _Items, item: int) -> None:
    extents = items.extents.get(item, [])
    lost = max((end for _, end in extents), default=0) - len(data)
    if lost > 0:
        raise ImageError("truncated", f"the file ends {lost} bytes before the image's coded data")
    coded = b"".join(data[start:end] for start, end in extents)
    kind = items.kinds.get(item)
    if kind in (b"hvc1", b"av01") and any(lost in coded for lost in _LOST):
        raise ImageError("corrupt", "a lost sector in the image's coded data")
    if kind == b"hvc1":
        _check_nal_units(coded, items.nal_length_size)


def _check_nal_units(coded: bytes, length_size: int) -> None:
    at = 0
    while at < len(coded):
        start = at + length_size
        at = start + int.from_bytes(coded[at:start], "big")
        if at > len(coded) or at == start:
            raise ImageError("corrupt", "the units of the image's coded data do not follow each other")
        if _FORBIDDEN.search(coded, start, at):
            raise ImageError("corrupt", "bytes in the image's coded data that no HEVC coder writes")
