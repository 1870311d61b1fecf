"""One run at a time on one output."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Condition

from beitcli.errors import BusyError
from beitcli.outputs.destination import writing
from beitcli.records import printable

log = logging.getLogger(__name__)

_holders: dict[str, str] = {}
"""The lock files that this process holds, with their holders."""

_changed = Condition()


@contextmanager
def exclusive(path: str, wait: bool) -> Iterator[None]:
    """Exclusive access to the file `path`, by a lock on `FILE.lock`, which names its holder and start time.

    The lock ends with its process in every case. Raises BusyError where another run holds it, also in another thread,
    unless `wait`. A file system without locks gives none, and a notice says so.
    """
    lock = f"{os.path.realpath(path)}.lock"
    with _exclusive_in_process(lock, path, wait):
        with writing():
            descriptor = _locked(lock, path, wait)
        try:
            with suppress(OSError):  # a full disk has no room for the holder's name
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{_this_run()}\n".encode(), 0)
            yield
        finally:
            with suppress(OSError):
                os.unlink(lock)
            os.close(descriptor)


def _this_run() -> str:
    started = datetime.now().astimezone().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {started}"


@contextmanager
def _exclusive_in_process(lock: str, path: str, wait: bool) -> Iterator[None]:
    """Exclusive access among the threads of this process, which a lock of the file system does not tell apart."""
    with _changed:
        if lock in _holders:
            _refuse_unless(wait, path, _holders[lock])
        while lock in _holders:
            _changed.wait()
        _holders[lock] = _this_run()
    try:
        yield
    finally:
        with _changed:
            del _holders[lock]
            _changed.notify_all()


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
    _refuse_unless(wait, path, holder)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)


def _refuse_unless(wait: bool, path: str, holder: str) -> None:
    if not wait:
        message = f"another run is writing `{printable(path)}`: {holder or 'it has just begun'}"
        raise BusyError(
            message, "wait for it (`batch`, `embed` and `eval` do with `wait=True`), or choose another output"
        )
    log.info("waiting for the run that is writing `%s`: %s", path, holder)


def _is_still(lock: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(lock, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False
