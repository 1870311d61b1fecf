"""One run at a time on one output."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from beitcli.errors import BusyError
from beitcli.outputs.destination import writing
from beitcli.records import printable

log = logging.getLogger(__name__)


@contextmanager
def exclusive(path: str, wait: bool) -> Iterator[None]:
    """Exclusive access to the file `path`, by a lock on `FILE.lock`, which names its holder and start time.

    The lock ends with its process in every case. Raises BusyError where another run holds it, unless `wait`. A file
    system without locks gives none, and a notice says so.
    """
    lock = f"{os.path.realpath(path)}.lock"
    with writing():
        descriptor = _locked(lock, path, wait)
    try:
        with writing():
            started = datetime.now().astimezone().isoformat(" ", "seconds")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {started}\n".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            os.unlink(lock)
        os.close(descriptor)


def _locked(lock: str, path: str, wait: bool) -> int:
    """The descriptor of the lock file, locked. Not by flock, which processes forked later would share."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    reason = error.strerror
                    log.warning("no locks here (%s): do not start a second run on `%s`", reason, printable(path))
                    return descriptor
                _wait_or_raise(descriptor, path, wait)
            if _is_still(lock, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the run that held it has removed it


def _wait_or_raise(descriptor: int, path: str, wait: bool) -> None:
    holder = printable(os.pread(descriptor, 300, 0).decode(errors="replace").strip())
    if not wait:
        message = f"another run is writing `{printable(path)}`: {holder or 'it has just begun'}"
        raise BusyError(
            message, "wait for it (`batch`, `embed` and `eval` do with `wait=True`), or choose another output"
        )
    log.info("waiting for the run that is writing `%s`: %s", path, holder)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)


def _is_still(lock: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(lock, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
