"""Where a run's text goes: standard output, a FIFO or device, or a file that is replaced when it is whole."""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from beitcli.errors import OutputError
from beitcli.records import printable

log = logging.getLogger(__name__)


class ReaderGone(Exception):  # noqa: N818  # no error: the run ends well
    """Whoever read the output has seen enough."""


@contextmanager
def writing() -> Iterator[None]:
    """Turns what writing raises into ReaderGone, where a pipe has lost its reader, or OutputError."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except OSError as error:
        hint = "make room, then run it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
        raise OutputError(f"cannot write the records: {error.strerror}", hint) from error


def check_writable(path: str) -> None:
    """Raises OutputError where `path` could not be written: before the expensive part of a run."""
    folder = os.path.dirname(os.path.realpath(path))
    if not path or path.endswith("/") or os.path.isdir(path):
        raise OutputError(f"--out `{printable(path)}` names no file", "name a file")
    if not os.path.isdir(folder):
        raise OutputError(f"the folder `{printable(folder)}` does not exist", "make it first, or choose another --out")
    if not os.access(path if _is_stream(path) else folder, os.W_OK):
        raise OutputError(f"`{printable(folder)}` may not be written to", "choose another --out")


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output as UTF-8 with `\\n` line ends, whatever the locale."""
    with _closed(open(1, "w", encoding="utf-8", errors="backslashreplace", newline="", closefd=False)) as stream:
        yield stream


@contextmanager
def replaced_file(path: str) -> Iterator[TextIO]:
    """A stream that becomes the file `path` when the block ends well, and else stays beside it as `FILE.part`.

    A link's target is replaced and keeps its mode. A FIFO or device is written to as it is. Raises OutputError where
    the file cannot be written, or another run is writing it.
    """
    if _is_stream(path):  # asked before links are resolved: /dev/stdout leads to a name that is no path
        with writing():
            device = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115
        with _closed(device) as stream:
            yield stream
        return
    target = os.path.realpath(path)
    part = target + ".part"
    with _closed(_opened_alone(part)) as stream:
        try:
            if os.path.exists(target):
                os.fchmod(stream.fileno(), stat.S_IMODE(os.stat(target).st_mode))
            yield stream
            with writing():
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(part, target)
        except BaseException:
            log.error("what was written until now is in `%s`", printable(part))
            raise


@contextmanager
def _closed(stream: TextIO) -> Iterator[TextIO]:
    """Closes the stream, without a second complaint where writing has failed already."""
    try:
        yield stream
    except BaseException:
        with suppress(OSError):
            stream.close()
        raise
    with writing():
        stream.close()


def _opened_alone(part: str) -> TextIO:
    """The part file, empty, and locked until it is closed: a second run would mix its rows with ours."""
    with writing():
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    stream: TextIO = open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        moved = not os.path.exists(part) or os.stat(part).st_ino != os.fstat(descriptor).st_ino
    except OSError:
        moved = True
    if moved:  # by the run that had the lock until now
        stream.close()
        raise OutputError(f"another run is writing `{printable(part)}`", "wait for it, or choose another --out")
    os.ftruncate(descriptor, 0)
    return stream


def _is_stream(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
