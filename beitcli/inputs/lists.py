"""Lists of paths and URLs -> sources, as they are read."""

import logging
import os
from collections.abc import Iterator
from typing import BinaryIO

from beitcli.errors import BeitError, UsageError
from beitcli.inputs.sources import literal, wait_at_standard_input
from beitcli.inputs.spelling import SpellingNotice, existing_form
from beitcli.inputs.text import not_utf8, utf8_blocks
from beitcli.records import Source, printable

log = logging.getLogger(__name__)


def open_list(path: str) -> BinaryIO:
    """The list of paths and URLs at `path` (`-`: standard input), for `read_list`. Raises UsageError if unreadable."""
    try:
        if path != "-":
            return open(path, "rb")
        wait_at_standard_input()
        return open(0, "rb", closefd=False)
    except OSError as error:
        raise UsageError(f"cannot read the list `{printable(path)}`: {error.strerror}") from error


def read_list(stream: BinaryIO, null: bool, silent: bool = False) -> Iterator[Source]:
    """One source an entry, literally: no glob, no `-`, spaces kept, empty entries skipped; lazily.

    Lines are UTF-8, with or without a byte order mark, or UTF-16 by its mark; a final CR is dropped. A line that is not
    UTF-8 is a path of such bytes; if the first of them does not exist, UsageError is raised. With `null`, entries
    end in NUL, and are bytes as they are. Unless `silent`, a list that seems to be of another kind, or to spell its
    paths as another system does, is worth a warning.
    """
    seen = SpellingNotice("the list")
    with stream:
        for name in filter(None, _split(_blocks(stream), b"\0")) if null else _lines(stream, silent):
            location = existing_form(os.fsdecode(name))
            if not silent:
                seen.look(location)
            yield literal(location)


def _lines(stream: BinaryIO, silent: bool) -> Iterator[bytes]:
    has_bytes, warned = False, silent
    for number, line in enumerate(_split(utf8_blocks(_blocks(stream), "the list"), b"\n"), 1):
        name = line.removesuffix(b"\r")
        if not warned and b"\0" in name:
            warned = True
            log.warning("the list has NUL in its lines, which no name has: is it one for `null=True`?")
        if not has_bytes and not _is_utf8(name):
            if not os.path.lexists(existing_form(os.fsdecode(name))):
                error = not_utf8("the list", number, name)
                raise UsageError(f"{error}, and no file has that name", f"{error.hint}; `null=True` takes any bytes")
            has_bytes = True
        if name:
            yield name


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split(blocks: Iterator[bytes], separator: bytes) -> Iterator[bytes]:
    rest: list[bytes] = []
    for block in blocks:
        end, *lines = block.split(separator)
        rest.append(end)
        if lines:
            yield b"".join(rest)
            yield from lines[:-1]
            rest = lines[-1:]
    yield b"".join(rest)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    try:
        while block := stream.read1(1 << 16):  # type: ignore[attr-defined]  # both kinds of stream above have it
            yield block
    except OSError as error:
        raise BeitError(f"cannot read on in the list: {error.strerror}") from error
