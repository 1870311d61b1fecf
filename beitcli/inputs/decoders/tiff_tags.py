"""TIFF directories, read tag by tag, so that a broken tag matters only where it is used."""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from beitcli.errors import ImageError

SIGNATURES = (b"MM\0*", b"II*\0", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0")
"""First bytes of TIFF; the two in the middle, with the number in the other byte order, come from some writers."""

REDUCED, OLD_KIND, SUB_DIRECTORIES = 254, 255, 330

_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 18: "Q"}
_RATIONALS = {5: "I", 10: "i"}
_MOST_PAGES = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag: the type and the number of its values, and the offset of the first."""

    kind: int
    count: int
    offset: int


@dataclass(frozen=True, slots=True)
class Directory:
    """The tags of one page, read on access."""

    stream: BinaryIO
    order: str
    entries: dict[int, Entry]

    def numbers(self, tag: int, default: tuple[float, ...] = ()) -> tuple[float, ...]:
        """The tag's values, or the default where there is no such tag."""
        entry = self.entries.get(tag)
        if entry is None:
            return default
        code, step = _NUMBERS.get(entry.kind), 1
        if code is None:
            code, step = _RATIONALS.get(entry.kind), 2
        if code is None or not entry.count:
            raise ImageError("corrupt", f"the TIFF tag {tag} holds no numbers")
        size = entry.count * step * struct.calcsize(f"={code}")
        values = struct.unpack(
            f"{self.order}{entry.count * step}{code}", read_at(self.stream, entry.offset, size, f"tag {tag}")
        )
        if step == 1:
            return values
        return tuple(a / b if b else 0.0 for a, b in zip(values[::2], values[1::2], strict=True))

    def integers(self, tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The tag's values as whole numbers, or the default where there is no such tag."""
        return tuple(int(value) for value in self.numbers(tag, default))

    def integer(self, tag: int, default: int) -> int:
        """The tag's first value as a whole number, or the default where there is no such tag."""
        return self.integers(tag, (default,))[0]

    def note(self, tag: int, default: int) -> int:
        """The tag's first value, or the default where it cannot be read: for tags that do not affect the pixels."""
        try:
            return self.integer(tag, default)
        except (ImageError, ValueError, OverflowError):  # a float tag that holds no number
            return default


def size_of(stream: BinaryIO) -> int:
    """The number of bytes of the whole file."""
    return stream.seek(0, io.SEEK_END)


def read_at(stream: BinaryIO, offset: int, size: int, name: str) -> bytes:
    """These bytes of the file; raises ImageError where the file ends earlier."""
    if offset + size > size_of(stream):
        raise ImageError("truncated", f"the TIFF's {name} lies beyond the end of the file")
    stream.seek(offset)
    return stream.read(size)


def first_full_directory(stream: BinaryIO) -> Directory:
    """The first page that is no reduced copy or mask of another one, or else the first page."""
    first = None
    for directory in _directories(stream):
        if _is_full(directory):
            return directory
        first = first or directory
    if first is None:
        raise ImageError("corrupt", "the TIFF holds no image")
    if SUB_DIRECTORIES in first.entries:
        big = read_at(stream, 0, 4, "header")[2:] in (b"+\0", b"\0+")
        for offset in first.integers(SUB_DIRECTORIES):
            directory, _ = _directory(stream, first.order, big, offset)
            if _is_full(directory):
                return directory
    return first


def _is_full(directory: Directory) -> bool:
    return not directory.note(REDUCED, 0) & 0b101 and directory.note(OLD_KIND, 1) != 2


def _directories(stream: BinaryIO) -> Iterator[Directory]:
    head = read_at(stream, 0, 8, "header")
    order = "<" if head.startswith(b"II") else ">"
    big = b"+" in head[2:4]
    if big:
        (offset,) = struct.unpack(f"{order}Q", read_at(stream, 8, 8, "header"))
    else:
        (offset,) = struct.unpack(f"{order}I", head[4:])
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MOST_PAGES:
        seen.add(offset)
        directory, offset = _directory(stream, order, big, offset)
        yield directory


def _directory(stream: BinaryIO, order: str, big: bool, offset: int) -> tuple[Directory, int]:
    """The directory at this offset, and the offset of the next one (0: none)."""
    head, form = ("Q", "HHQQ") if big else ("H", "HHII")
    start, width, inline = struct.calcsize(f"={head}"), struct.calcsize(f"={form}"), struct.calcsize(f"={form[-1]}")
    (count,) = struct.unpack(f"{order}{head}", read_at(stream, offset, start, "directory"))
    data = read_at(stream, offset + start, count * width, "directory")
    entries: dict[int, Entry] = {}
    for position, (tag, kind, number, place) in enumerate(struct.iter_unpack(f"{order}{form}", data)):
        code, step = (_NUMBERS.get(kind), 1) if kind not in _RATIONALS else (_RATIONALS[kind], 2)
        if code and number * step * struct.calcsize(f"={code}") <= inline:
            place = offset + start + (position + 1) * width - inline
        entries.setdefault(tag, Entry(kind, number, place))
    try:
        following = read_at(stream, offset + start + len(data), inline, "directory")
    except ImageError:  # the page itself is whole
        return Directory(stream, order, entries), 0
    return Directory(stream, order, entries), struct.unpack(f"{order}{form[-1]}", following)[0]
