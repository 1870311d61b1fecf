"""The parts of a JPEG's bytes: marker segments, frame and scan headers, tables, restart intervals (ITU-T T.81, B)."""

import re
from collections.abc import Iterator
from math import ceil
from typing import NamedTuple, TypeAlias

import numpy as np

_MARKER = re.compile(rb"\xff([\x01-\xfe])")  # no `+`: runs of fill bytes would take quadratic time

EOI = 0xD9
SOF_PROGRESSIVE = 0xC2
SOF_HUFFMAN = (0xC0, 0xC1, SOF_PROGRESSIVE)
"""Frame markers of baseline, extended sequential and progressive JPEG with Huffman codes."""

SOF_ARITHMETIC = (0xC9, 0xCA)
"""Frame markers of sequential and progressive JPEG with arithmetic coding."""

Codes: TypeAlias = list[int]
"""For each value of the next 16 bits: `symbol << 5 | length` of the code at their start, 0 if there is none."""


class Segment(NamedTuple):
    """A marker segment: the second byte of its marker, its content, and the offsets of its marker and of its end."""

    marker: int
    content: bytes
    start: int
    end: int


class Component(NamedTuple):
    """One colour component: its name, sampling factors, first quantization step, and size in blocks when alone."""

    name: int
    across: int
    down: int
    step: int
    columns: int
    rows: int


class Frame(NamedTuple):
    """The frame header: `columns` × `rows` units, each a block of every component or several, make an image."""

    marker: int
    precision: int
    height: int
    components: dict[int, Component]
    columns: int
    rows: int


class Scan(NamedTuple):
    """The scan header: components with their codes for the first and the other coefficients, and the range of these."""

    parts: list[tuple[Component, Codes, Codes]]
    first: int
    last: int
    refines: bool


def segments(data: bytes | bytearray) -> Iterator[Segment]:
    """The marker segments in order, up to EOI or the end of the data. Raises ValueError for an invalid marker."""
    position = 2
    while match := _MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        if marker == EOI:
            yield Segment(marker, b"", match.start(), position)
            return
        if 0x01 < marker < 0xC0:
            raise ValueError(f"{marker:#x} is no marker of JPEG")
        if marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:  # without content
            continue
        end = max(position + 2, position + int.from_bytes(data[position : position + 2], "big"))
        yield Segment(marker, bytes(data[position + 2 : end]), match.start(), end)
        position = end


def restart_intervals(data: bytes | bytearray, position: int) -> Iterator[tuple[bytes, int]]:
    """The entropy-coded data of each restart interval of the scan that begins there, and the marker after it."""
    while match := _MARKER.search(data, position):
        yield (
            bytes(data[position : match.start()].rstrip(b"\xff")),
            match[1][0],
        )  # fill bytes: a literal one is followed by 0
        if not 0xD0 <= match[1][0] <= 0xD7:
            return
        position = match.end()
    yield bytes(data[position:]), EOI


def has_all_scans(data: bytes | bytearray) -> bool:
    """True if the scans of a JPEG give every coefficient of every component to its last bit (T.81, A.2 and G.1.1)."""
    known: dict[int, set[int]] = {}
    progressive = False
    for segment in segments(data):
        content = segment.content
        if segment.marker in (*SOF_HUFFMAN, *SOF_ARITHMETIC):
            known = {name: set() for name in content[6::3]}
            progressive = segment.marker in (SOF_PROGRESSIVE, SOF_ARITHMETIC[1])
        elif segment.marker == 0xDA and content and len(content) >= 4 + 2 * content[0]:
            first, last, precision = content[1 + 2 * content[0] : 4 + 2 * content[0]] if progressive else (0, 63, 0)
            if not precision & 15:
                for name in content[1 : 1 + 2 * content[0] : 2]:
                    known.get(name, set()).update(range(first, last + 1))
    return all(len(coefficients) == 64 for coefficients in known.values())


def huffman_tables(content: bytes) -> Iterator[tuple[int, Codes]]:
    """The tables of a DHT segment by their class and number, `class << 4 | number` (B.2.4.2, C.2)."""
    position = 0
    while position + 17 <= len(content):
        counts = content[position + 1 : position + 17]
        symbols = iter(content[position + 17 : position + 17 + sum(counts)])
        codes, code = np.zeros(1 << 16, np.int64), 0
        for length, count in enumerate(counts, 1):
            for _, symbol in zip(range(count), symbols, strict=False):
                first = code << (16 - length)
                codes[first : first + (1 << (16 - length))] = symbol << 5 | length
                code += 1
            code <<= 1
        yield content[position], codes.tolist()
        position += 17 + sum(counts)


def quantization_steps(content: bytes) -> Iterator[tuple[int, int]]:
    """The first coefficient's step of each table of a DQT segment by the table's number (B.2.4.1).

    Raises ValueError where a step is 0.
    """
    position = 0
    while position < len(content):
        width = 2 if content[position] >> 4 else 1
        steps = np.frombuffer(content[position + 1 : position + 1 + 64 * width], f">u{width}")
        if len(steps) < 64 or not steps.all():
            raise ValueError("a quantization table with steps of 0")
        yield content[position] & 15, int(steps[0])
        position += 1 + 64 * width


def frame_header(segment: Segment, steps: dict[int, int]) -> Frame:
    """The frame of a SOF segment (B.2.2). Raises ValueError for one without sampling factors."""
    content = segment.content
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    factors = [(value >> 4, value & 15) for value in content[7::3]]
    if not factors or not all(across and down for across, down in factors):
        raise ValueError("a frame header without sampling factors")
    most_across, most_down = max(across for across, _ in factors), max(down for _, down in factors)
    components = {
        name: Component(
            name,
            across,
            down,
            steps.get(table, 1),
            ceil(ceil(width * across / most_across) / 8),
            ceil(ceil(height * down / most_down) / 8),
        )
        for name, (across, down), table in zip(content[6::3], factors, content[8::3], strict=False)
    }
    columns, rows = -(-width // (8 * most_across)), -(-height // (8 * most_down))
    return Frame(segment.marker, content[0], height, components, columns, rows)


def scan_header(content: bytes, frame: Frame, tables: dict[int, Codes]) -> Scan:
    """The scan of a SOS segment (B.2.3). Raises ValueError for components that the frame does not have."""
    count = content[0] if content else 0
    if not count or len(content) < 2 * count + 4:
        raise ValueError("a scan header that is too short")
    parts = []
    for name, numbers in zip(content[1 : 1 + 2 * count : 2], content[2 : 2 + 2 * count : 2], strict=True):
        if name not in frame.components:
            raise ValueError("a scan of a component that the frame does not have")
        parts.append((frame.components[name], tables.get(numbers >> 4, []), tables.get(0x10 | numbers & 15, [])))
    if frame.marker != SOF_PROGRESSIVE:
        return Scan(parts, 0, 63, refines=False)
    first, last, precision = content[1 + 2 * count : 4 + 2 * count]
    return Scan(parts, first, last, refines=precision >> 4 > 0)
