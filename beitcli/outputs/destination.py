"""Where a run's text goes: standard output, a FIFO or device, or a file that is replaced when it is whole."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from beitcli.errors import OutputError
from beitcli.records import printable


def check_writable(path: str) -> None:
    """Raises OutputError where `path` could not be written: before the expensive part of a run."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise OutputError(f"`{printable(path)}` is a folder", "name a file in it")
    if not os.path.isdir(folder):
        raise OutputError(f"the folder `{printable(folder)}` does not exist", "make it first, or choose another --out")
    if not os.access(folder if not _is_stream(path) else path, os.W_OK):
        raise OutputError(f"`{printable(folder)}` may not be written to", "choose another --out")


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output as UTF-8 with `\\n` line ends, whatever the locale."""
    with _closed(open(1, "w", encoding="utf-8", errors="backslashreplace", newline="", closefd=False)) as stream:
        yield stream


@contextmanager
def replaced_file(path: str) -> Iterator[TextIO]:
    """A stream that becomes the file `path` when the block ends well, and is `part_of(path)` until then and otherwise.

    A link's target is replaced and keeps its mode. A FIFO or device is written to as it is.
    """
    is_stream = _is_stream(path)  # before links are resolved: /dev/stdout leads to a name that is no path
    target = path if is_stream else os.path.realpath(path)
    part = target if is_stream else part_of(path)
    with _closed(_opened(part)) as stream:
        yield stream
        if part != target:
            _make_durable(stream, target)
    if part != target:
        os.replace(part, target)


@contextmanager
def _closed(stream: TextIO) -> Iterator[TextIO]:
    """Closes the stream, without a second complaint where writing has failed already."""
    try:
        yield stream
    except BaseException:
        with suppress(OSError):
            stream.close()
        raise
    stream.close()


def _make_durable(stream: TextIO, target: str) -> None:
    stream.flush()
    os.fsync(stream.fileno())
    if os.path.exists(target):
        os.fchmod(stream.fileno(), stat.S_IMODE(os.stat(target).st_mode))


def part_of(path: str) -> str:
    """Where the records for `path` are until they are complete."""
    return os.path.realpath(path) + ".part"


def _opened(path: str) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise OutputError(f"cannot write `{printable(path)}`: {error.strerror}") from error


def _is_stream(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)
