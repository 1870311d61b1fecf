"""Destinations of a run: standard output, a FIFO or device, or a file that is replaced atomically."""

import io
import logging
import os
import re
import select
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from beitcli.errors import OutputError, UsageError, hint_for
from beitcli.file_system import copy_mode, replace, sync
from beitcli.records import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = logging.getLogger(__name__)


class _Closable(Protocol):
    def close(self) -> None: ...


_Output = TypeVar("_Output", bound=_Closable)

_DESCRIPTOR = re.compile(r"(?:/dev/fd/|/proc/self/fd/)(\d{1,9})|/dev/(std(?:in|out|err))")


class ReaderClosed(Exception):  # noqa: N818  # no error: the run ends well
    """The reader of the output has closed it."""


@contextmanager
def writing() -> Iterator[None]:
    """Convert errors of writing to ReaderGone, where a pipe has lost its reader, or OutputError."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderClosed from error
    except OSError as error:
        name = f" to `{printable(os.fsdecode(error.filename))}`" if isinstance(error.filename, str | bytes) else ""
        raise OutputError(f"cannot write the records{name}: {error.strerror or error}", hint_for(error)) from error


def check_writable(path: str) -> None:
    """Raise OutputError where `path` could not be written: before the expensive part of a run."""
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.basename(path).endswith((".ledger", ".lock", ".part")):
        raise OutputError(f"`{printable(path)}` has the name of a file that a run keeps", "choose another name")
    if not path or path.endswith("/") or os.path.isdir(path):
        raise OutputError(f"`{printable(path)}` names no file", "name a file")
    if not os.path.isdir(folder):
        raise OutputError(f"the folder `{printable(folder)}` does not exist", "make it first, or write elsewhere")
    if not os.access(path if is_stream(path) else folder, os.W_OK):
        raise OutputError(f"`{printable(folder)}` may not be written to", "write elsewhere")


def check_not_overwritten(outputs: Iterable[str], inputs: Iterable[str]) -> None:
    """Raise UsageError where an output would overwrite an input."""
    outputs = list(outputs)
    targets = {os.path.realpath(path) for path in outputs}
    names = {os.path.basename(path) for path in (*outputs, *targets)}
    for path in inputs:  # there may be millions, and links are followed for few
        if os.path.basename(path) in names and os.path.realpath(path) in targets:
            raise UsageError(f"`{printable(path)}` is an input, and would be overwritten", "write elsewhere")


def is_in(path: str, folder: str) -> bool:
    """True if `path`, which need not exist, is that folder or below it."""
    return f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(folder)}/")


def is_stream(path: str) -> bool:
    """True if `path` is a FIFO, a device or an open descriptor, which is written to and not replaced."""
    if _DESCRIPTOR.fullmatch(path):
        return True
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


class WaitingFile(io.FileIO):
    """A file that is written whole also by a descriptor that does not block, as some programs leave a shared pipe."""

    def write(self, data: "ReadableBuffer") -> int:
        while (written := super().write(data)) is None:  # full
            poll = select.poll()
            poll.register(self, select.POLLOUT)
            poll.poll()
        return written


def waiting(file: int | str, closefd: bool = True) -> io.BufferedWriter:
    """A buffered stream to a file or descriptor whose writes wait for room, whatever the mode of the descriptor."""
    return io.BufferedWriter(WaitingFile(file, "w", closefd))


class _StandardOutput:
    """The descriptor to write records to: one per process, as standard output is."""

    number = 1


@contextmanager
def reserved_standard_output() -> Iterator[None]:
    """Keep standard output for records: what other code writes to descriptor 1 meanwhile is dropped."""
    if _StandardOutput.number == 1:
        _StandardOutput.number = os.dup(1)  # never closed: a stream may be flushed behind this block
    if sys.stdout is not None:
        sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        if sys.stdout is not None:
            sys.stdout.flush()
        os.dup2(_StandardOutput.number, 1)


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    with closed(waiting(_StandardOutput.number, closefd=False)) as stream:
        yield stream


@contextmanager
def stream_to(path: str) -> Iterator[BinaryIO]:
    """A stream to a FIFO or device. Raises OutputError where it cannot be opened or written."""
    with writing():
        # A descriptor is duplicated: opened by its name, a file behind it would be truncated.
        number = _DESCRIPTOR.fullmatch(path)
        device = waiting(os.dup(_number(number)) if number else path)
    with closed(device) as stream:
        yield stream


def _number(match: re.Match[str]) -> int:
    number = int(match[1]) if match[1] else {"stdin": 0, "stdout": 1, "stderr": 2}[match[2]]
    return _StandardOutput.number if number == 1 else number


@contextmanager
def replaced_file(path: str, keeps_part: bool) -> Iterator[BinaryIO]:
    """A stream that becomes the file `path` when the block ends well.

    Until then it is `FILE.part` beside it, which remains after an exception if `keeps_part`. A link's target is
    replaced and keeps its mode. Raises OutputError where the file cannot be written.
    """
    target = os.path.realpath(path)
    part = f"{target}.part"
    with writing():
        descriptor = os.open(
            part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
        )
    try:
        os.set_blocking(descriptor, True)  # only opening must not wait
        with closed(open(descriptor, "wb")) as stream:
            with writing():
                copy_mode(descriptor, target)
            yield stream
            with writing():
                stream.flush()
                sync(descriptor)
                replace(part, target)
    except BaseException:
        if keeps_part:
            log.error("what was written until now is in `%s`", printable(part))
        else:
            with suppress(OSError):
                os.unlink(part)
        raise


@contextmanager
def closed(stream: _Output) -> Iterator[_Output]:
    """Close a stream or its writer, without a second error where writing has failed already."""
    try:
        yield stream
    except BaseException:
        with suppress(OSError):
            stream.close()
        raise
    with writing():
        stream.close()
