"""Single files: copied, moved and linked to a free place, never over another file, and again after a kill."""

import errno
import filecmp
import os
import shutil
import stat
from contextlib import suppress

from beitcli.file_system import appear, copy_attributes, sync, sync_folder


def copy(source: str, target: str, part: str) -> None:
    """Copy a regular file, or what a link leads to, with its times and mode; `part` is a file beside the target.

    Raises FileExistsError where something is at the target, OSError, also where the file changes meanwhile.
    """
    before = os.stat(source)
    if not stat.S_ISREG(before.st_mode):
        raise OSError(errno.EINVAL, "no regular file", source)
    try:
        shutil.copyfile(source, part)
        copy_attributes(source, part)
        after = os.stat(source)
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise OSError(errno.EBUSY, "it is being written", source)
        _sync(part)
        appear(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def write(data: bytes, target: str, part: str) -> None:
    """Write a new file. Raises FileExistsError where something is at the target, OSError."""
    try:
        with open(part, "wb") as stream:
            stream.write(data)
            stream.flush()
            sync(stream.fileno())
        appear(part, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise


def move(source: str, target: str, part: str) -> None:
    """Move a file; to another file system by a copy that is on its disk before the file is deleted.

    Raises FileExistsError where something is at the target, OSError; then the file is where it was, and only there.
    """
    try:
        appear(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    folder = os.path.dirname(source)
    if not os.access(folder, os.W_OK):  # before a long copy
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    else:
        copy(source, target, part)
    sync_folder(os.path.dirname(target))
    try:
        os.unlink(source)
    except OSError:
        os.unlink(target)
        raise


def finish_move(source: str, target: str) -> bool:
    """True if a move that was killed has brought the file to the target; its end is made good.

    False if nothing of it is at the target. A second file of the same bytes at the source is deleted.
    """
    if not os.path.lexists(target):
        return False
    if not os.path.lexists(source) or is_same_place(source, target):
        return True
    if not is_equal(source, target):
        return False
    sync_folder(os.path.dirname(target))
    os.unlink(source)
    return True


def is_same_place(one: str, other: str) -> bool:
    """True for two spellings of one path, of which links of folders may be part."""
    return os.path.basename(one) == os.path.basename(other) and os.path.samefile(
        os.path.dirname(one), os.path.dirname(other)
    )


def is_equal(one: str, other: str) -> bool:
    """True for two regular files of the same bytes, or two links to the same path."""
    if os.path.islink(one) or os.path.islink(other):
        return leads_to(one) == leads_to(other)
    if not (os.path.isfile(one) and os.path.isfile(other)):
        return False
    filecmp.clear_cache()  # it goes by size and time
    return filecmp.cmp(one, other, shallow=False)


def leads_to(path: str) -> str | None:
    """The text of a symbolic link; None for what is none."""
    return os.readlink(path) if os.path.islink(path) else None


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
