"""Files: their digest, and steps of writing one that some file systems refuse: its mode, sync, lock and replacement."""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import stat
from contextlib import suppress
from functools import cache

from beitcli.records import printable

log = logging.getLogger(__name__)

_REFUSALS = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.EINVAL, errno.EEXIST, errno.ENOTTY),
        *(errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK),
    }
)
"""Errors of a file system that lacks a call, as exFAT, FUSE and network shares do; not those of a full or bad disk."""


def file_digest(path: str) -> str:
    """SHA-256 of a file's content, in hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def copy_mode(descriptor: int, path: str) -> None:
    """Give the open file the mode of the file `path`, where there is one."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return
    try:
        if mode != stat.S_IMODE(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, mode)
    except OSError as error:
        _raise_unless_refused(error)
        _notify(f"this file system sets no modes ({error.strerror}): `{printable(path)}` gets that of a new file")


def share_mode(path: str, other: str) -> None:
    """Give the file at `path` the mode of the file `other`, where the file system sets modes."""
    try:
        shutil.copymode(other, path)
    except OSError as error:
        _raise_unless_refused(error)
        _notify(f"this file system sets no modes ({error.strerror}): `{printable(path)}` keeps its own")


def sync(descriptor: int) -> None:
    """Flush the open file to its disk. Raises OSError where that fails, not where the file system refuses it."""
    if not can_sync(descriptor):
        _notify("this file system does not flush files to its disk: after a crash of the machine, check the last ones")


def can_sync(descriptor: int) -> bool:
    """True if the open file is flushed to its disk now, False where the file system refuses. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        _raise_unless_refused(error)
        return False
    return True


def can_lock(descriptor: int) -> bool:
    """True if the file system can lock the open file, which is not locked afterwards."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB, 1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1)
    return True


def replace(new: str, path: str) -> None:
    """Move the file `new` to `path`: in one step, or where the file system refuses that, after deleting the old file.

    Raises OSError where that fails, too.
    """
    try:
        os.replace(new, path)
    except OSError as error:
        _raise_unless_refused(error)
        reason = error.strerror
    else:
        return
    with suppress(FileNotFoundError):
        os.unlink(path)
    try:
        os.rename(new, path)
    except OSError:
        shutil.copyfile(new, path)
        os.unlink(new)
    _notify(
        f"this file system replaces no file in one step ({reason}): a run that is killed just then leaves "
        f"`{printable(new)}` alone"
    )


def appear(new: str, path: str) -> None:
    """Move the file `new` to `path` in the same file system, and never over another file.

    Killed in between, it leaves both names for the one file. Raises FileExistsError where something is at `path`,
    OSError where either folder refuses; then nothing has moved.
    """
    try:
        os.link(new, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError as error:  # no hard links here, or none of others' files
        _raise_unless_refused(error)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        os.rename(new, path)
        return
    try:
        os.unlink(new)
    except OSError:
        os.unlink(path)
        raise


def copy_attributes(path: str, copy: str) -> None:
    """Give the copy of a file its times, mode and further attributes, as far as its file system has them."""
    try:
        shutil.copystat(path, copy)
    except OSError as error:
        _raise_unless_refused(error)
        _notify(f"this file system refuses the time or mode of a file ({error.strerror}): copies get their own")


def sync_folder(folder: str) -> None:
    """Flush the names in a folder to its disk. Raises OSError where that fails, not where it is refused."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        can_sync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_refused(error: OSError) -> None:
    if error.errno not in _REFUSALS:
        raise error


@cache
def _notify(text: str) -> None:
    """Log the notice, once in a process."""
    log.warning("%s", text)
