"""Strict check of a JPEG's entropy-coded data: an error unless it holds every block that the headers declare.

libjpeg fills in what is missing and skips what does not fit, with a single warning that may mean two stray bytes or
half an image. Here the codes are followed without making pixels (ITU-T T.81, annexes F and G). That takes about a
second for 3 MB, so it is done only where there is doubt.
"""

import re
from array import array
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from beitcli.errors import ImageError
from beitcli.inputs.decoders.jpeg_stream import (
    SOF_HUFFMAN,
    SOF_PROGRESSIVE,
    Codes,
    Frame,
    Scan,
    frame_header,
    huffman_tables,
    quantization_steps,
    restart_intervals,
    scan_header,
    segments,
)

_ZEROS = re.compile(rb"\0{32,}")

_MOST_ZERO_BITS = 64
"""Bits of one block that may all be zero: a flat block takes fewer than 16, and 63 equal coefficients do not occur."""

_MOST_STRAY_BYTES = 64
"""Bytes that a sloppy encoder may leave after the last block of a restart interval; more are lost blocks."""

_MOST_STRAY_BYTES_PROGRESSIVE = 8
"""The same for a scan of some coefficients only, where stray bytes cannot be distinguished from lost blocks."""

_FEWEST_LOST_BLOCKS = 4
"""Blocks that leftover bytes must form to count as lost ones: fewer also occur by chance."""

_MOST_LEFTOVER_INTERVALS = 2
"""Most restart intervals with leftover bytes that may be lost blocks: a sloppy encoder leaves them in all."""

_END_OF_BLOCK = 1000
"""Coefficient number after an end-of-block code."""


class _Damage(Exception):  # noqa: N818  # converted to an ImageError by this module's one public function
    """Codes that no encoder writes."""


class _Bits:
    """Bit reader of one restart interval."""

    def __init__(self, data: bytes) -> None:
        self.data = data.replace(b"\xff\x00", b"\xff")
        padded = np.frombuffer(self.data + bytes(4), np.uint8).astype(np.uint32)
        self.windows = array("I", (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).tobytes())
        self.size = 8 * len(self.data)
        self.at = 0

    def number(self, length: int) -> int:
        """The next bits as a number, at most 16 of them; raises EOFError where there are fewer."""
        at = self.at
        self.at = at + length
        if self.at > self.size:
            raise EOFError
        return (self.windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF) >> (16 - length)

    def symbol(self, codes: Codes) -> int:
        """The symbol of the next code; raises EOFError where the bits have ended, _Damage where no code fits."""
        if self.at >= self.size:
            raise EOFError
        entry = codes[self.windows[self.at >> 3] >> (8 - (self.at & 7)) & 0xFFFF]
        if not entry:
            raise _Damage("no Huffman code begins like this")
        self.at += entry & 31
        return entry >> 5


def check_entropy_coded_data(data: bytes | bytearray, only_with: bytes = b"") -> None:
    """Raise ImageError unless every restart interval of every scan holds exactly its blocks.

    `data` is a JPEG with Huffman codes. A few stray bytes after the last block of an interval are tolerated, and so are
    any zeros. With `only_with`, scans without these bytes are not checked, nor are scans of a progressive JPEG that
    refine others: they depend on them.
    """
    try:
        _check_scans(data, only_with)
    except EOFError:
        raise ImageError("truncated", "the JPEG's coded data ends before the last block") from None
    except (_Damage, ValueError) as error:
        raise ImageError("corrupt", f"the JPEG's coded data is damaged: {error}") from None


def _check_scans(data: bytes | bytearray, only_with: bytes) -> None:
    frame: Frame | None = None
    tables: dict[int, Codes] = {}
    steps: dict[int, int] = {}
    nonzero: dict[int, list[int]] = {}
    restart, covered = 0, set[int]()
    for segment in segments(data):
        match segment.marker:
            case 0xC4:
                tables.update(huffman_tables(segment.content))
            case 0xDB:
                steps.update(quantization_steps(segment.content))
            case 0xDD:
                restart = int.from_bytes(segment.content[:2], "big")
            case marker if marker in SOF_HUFFMAN:
                frame = frame_header(segment, steps)
            case 0xDA if frame:
                scan = scan_header(segment.content, frame, tables)
                covered.update(segment.content[1 : 1 + 2 * len(scan.parts) : 2])
                intervals = list(restart_intervals(data, segment.end))
                refines = scan.refines and scan.first > 0
                if only_with and (refines or not any(only_with in content for content, _ in intervals)):
                    continue
                followed = _followed(intervals, restart, _units(frame, scan))
                if frame.marker == SOF_PROGRESSIVE:
                    for bits, start, count in followed:
                        _follow_progressive(bits, scan, nonzero, start, count)
                else:
                    _follow_sequential(scan, followed)
    if frame is None or covered != set(frame.components):
        raise EOFError


def _units(frame: Frame, scan: Scan) -> int:
    """The number of units of a scan: blocks of one component, or groups of blocks of several (T.81, A.2)."""
    if len(scan.parts) > 1:
        return frame.columns * frame.rows
    component = scan.parts[0][0]
    return component.columns * component.rows


def _followed(intervals: list[tuple[bytes, int]], restart: int, units: int) -> Iterator[tuple[_Bits, int, int]]:
    """The bits of each restart interval, its first unit and their number. Raises _Damage where one is lost."""
    length = restart or units
    if len(intervals) < -(-units // length):
        raise EOFError
    if len(intervals) > -(-units // length):
        raise _Damage(f"{len(intervals)} restart intervals instead of {-(-units // length)}")
    for number, (content, marker) in enumerate(intervals):
        if number < len(intervals) - 1 and marker != 0xD0 + number % 8:
            raise _Damage(f"restart marker {marker - 0xD0} instead of {number % 8}")
        yield _Bits(content), number * length, min(length, units - number * length)


_Block: TypeAlias = tuple[int, int, Codes, Codes]
"""A block of a unit: the number and first quantization step of its component, and its codes."""


def _follow_sequential(scan: Scan, intervals: Iterator[tuple[_Bits, int, int]]) -> None:
    alone = len(scan.parts) == 1
    blocks = [
        (number, part.step, first, others)
        for number, (part, first, others) in enumerate(scan.parts)
        for _ in range(1 if alone else part.across * part.down)
    ]
    if not all(first and others for _, _, first, others in blocks):
        raise _Damage("a Huffman table is missing")
    left_over = []
    for bits, _, count in intervals:
        levels, starts = [0] * len(scan.parts), []
        for _ in range(count):
            starts.append(bits.at)
            for block in blocks:
                _follow_block(bits, block, levels)
        _check_zeros(bits, starts, len(blocks))
        if _stray_bytes(bits, _MOST_STRAY_BYTES):
            left_over.append(bits)
    if len(left_over) <= _MOST_LEFTOVER_INTERVALS and any(_holds_units(bits, blocks) for bits in left_over):
        raise _Damage("more blocks than the image has")


def _follow_block(bits: _Bits, block: _Block, levels: list[int]) -> None:
    """Read past one block (T.81, F.2.2); `levels` are the components' first coefficients so far."""
    component, step, first, others = block
    length = bits.symbol(first)
    if length > 11:
        raise _Damage("a first coefficient out of range")
    if length:
        value = bits.number(length)
        levels[component] += value if value >> (length - 1) else value - (1 << length) + 1
        if abs(levels[component]) * step > 1024 + 2 * step:
            raise _Damage("a block beyond black or white")
    windows, size, at, k = bits.windows, bits.size, bits.at, 1
    while k < 64:
        if at >= size:
            raise EOFError
        entry = others[windows[at >> 3] >> (8 - (at & 7)) & 0xFFFF]
        symbol = entry >> 5
        at += (entry & 31) + (symbol & 15)
        if symbol & 15:
            k += (symbol >> 4) + 1
        elif symbol == 0xF0:
            k += 16
        elif entry and not symbol:
            k = _END_OF_BLOCK
        else:
            raise _Damage("no Huffman code begins like this")
    if 64 < k < _END_OF_BLOCK:
        raise _Damage("more coefficients than a block has")
    if at > size:
        raise EOFError
    bits.at = at


def _check_zeros(bits: _Bits, starts: list[int], blocks: int) -> None:
    """Raise _Damage where zero bytes were read as blocks full of the shortest code: lost sectors are often zeros."""
    for run in _ZEROS.finditer(bits.data, 0, (bits.at + 7) // 8):
        first, last = np.searchsorted(starts, (8 * run.start(), 8 * run.end()))
        if 8 * (run.end() - run.start()) > _MOST_ZERO_BITS * blocks * (last - first + 1):
            raise _Damage(f"{run.end() - run.start()} zero bytes")


def _stray_bytes(bits: _Bits, most: int) -> int:
    """The number of bytes after the last block. Raises _Damage where they, or the bits before them, are not stray."""
    padding = -bits.at % 8
    stray = (bits.size - bits.at) // 8
    if not stray or _is_zero_padded(bits, stray):
        return 0
    if stray > most:
        raise _Damage(f"{stray} bytes are left after the last block")
    at = bits.at
    if bits.number(padding) not in (0, (1 << padding) - 1):
        raise _Damage("the last block does not end where its data does")
    bits.at = at
    return stray


def _is_zero_padded(bits: _Bits, stray: int) -> bool:
    """True if only zeros are left and no block was read from them."""
    begin = len(bits.data.rstrip(b"\0"))
    return begin <= len(bits.data) - stray and bits.at <= 8 * begin + 8


def _holds_units(bits: _Bits, blocks: list[_Block]) -> bool:
    """True if the remaining bits are exactly further units: then earlier ones are lost."""
    levels = [0] * (1 + max(component for component, *_ in blocks))
    found = 0
    try:
        while bits.size - bits.at >= 8:
            for block in blocks:
                _follow_block(bits, block, levels)
                found += 1
    except (EOFError, _Damage):
        return False
    rest = bits.size - bits.at
    return found >= _FEWEST_LOST_BLOCKS and bits.number(rest) == (1 << rest) - 1


def _follow_progressive(bits: _Bits, scan: Scan, nonzero: dict[int, list[int]], start: int, count: int) -> None:
    """Read past the units of an interval (T.81, G.1.2).

    `nonzero` holds a bit for each coefficient of each block of a component, as far as earlier scans have read them.
    """
    if scan.first == 0:
        _follow_first_coefficients(bits, scan, count)
    else:
        component, _, codes = scan.parts[0]
        if not codes:
            raise _Damage("a Huffman table is missing")
        masks = nonzero.setdefault(component.name, [0] * (component.columns * component.rows))
        follow = _follow_refinement if scan.refines else _follow_band
        empty, starts = 0, []
        for place in range(start, start + count):
            starts.append(bits.at)
            masks[place], empty = follow(bits, scan, codes, masks[place], empty)
        if empty:
            raise _Damage("more empty blocks than the image has")
        if not scan.refines:
            _check_zeros(bits, starts, 1)
    _stray_bytes(bits, _MOST_STRAY_BYTES_PROGRESSIVE)


def _follow_first_coefficients(bits: _Bits, scan: Scan, count: int) -> None:
    alone = len(scan.parts) == 1
    if scan.refines:  # a bit a block
        bits.at += count * (1 if alone else sum(part.across * part.down for part, _, _ in scan.parts))
        if bits.at > bits.size:
            raise EOFError
        return
    blocks = [first for part, first, _ in scan.parts for _ in range(1 if alone else part.across * part.down)]
    if not all(blocks):
        raise _Damage("a Huffman table is missing")
    for _ in range(count):
        for codes in blocks:
            length = bits.symbol(codes)
            if length > 11:
                raise _Damage("a first coefficient out of range")
            bits.number(length)


def _follow_band(bits: _Bits, scan: Scan, codes: Codes, mask: int, empty: int) -> tuple[int, int]:
    """Read past one block's coefficients; returns the mask of nonzero ones, and the number of empty blocks to come."""
    if empty:
        return mask, empty - 1
    k = scan.first
    while k <= scan.last:
        symbol = bits.symbol(codes)
        skipped, length = symbol >> 4, symbol & 15
        if not length and skipped < 15:
            return mask, (1 << skipped) + bits.number(skipped) - 1
        k += skipped
        if length:
            if k > scan.last:
                raise _Damage("more coefficients than a block has")
            bits.number(length)
            mask |= 1 << k
        k += 1
    return mask, 0


def _follow_refinement(bits: _Bits, scan: Scan, codes: Codes, mask: int, empty: int) -> tuple[int, int]:
    """Read past one block's further bits (T.81, G.1.2.3): one for each coefficient that is known not to be zero."""
    k, known = scan.first, mask
    while k <= scan.last and not empty:
        symbol = bits.symbol(codes)
        skipped, length = symbol >> 4, symbol & 15
        if length > 1:
            raise _Damage("a refinement of more than one bit")
        if length:
            bits.number(1)
        elif skipped < 15:
            empty = (1 << skipped) + bits.number(skipped)
            break
        while k <= scan.last:
            if known >> k & 1:
                bits.number(1)
            elif skipped:
                skipped -= 1
            else:
                break
            k += 1
        if length:
            if k > scan.last:
                raise _Damage("more coefficients than a block has")
            mask |= 1 << k
        k += 1
    if not empty:
        return mask, 0
    bits.at += (known >> k & ((1 << (scan.last + 1 - k)) - 1)).bit_count()
    if bits.at > bits.size:
        raise EOFError
    return mask, empty - 1
