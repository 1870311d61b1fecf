"""The C library's heap, tuned for a model: not returned and reallocated in every pass, and not growing.

Only in a process that calls `tune` first, as a command does: another program keeps its heap as it is.

By default glibc maps large tensors from the system and gives them back when they are freed: base-224 takes 450 MB of
zeroed pages anew in each pass, up to half of its time. Kept in the heap they leave holes into which the next tensors do
not fit: over ten thousand images the peak grew by 170 MB.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)

_LARGE, _LARGE_OLD_GLIBC = 1 << 30, 1 << 25
"""Blocks of so many bytes are still mapped one by one; glibc before 2.35 accepts at most the second value."""

_MAX_GROWTH = 64_000_000
"""Bytes that the process may grow by beyond its first pass before freed memory is returned."""


class _Process:
    """The heap's owner: one per process."""

    tuned = False


def tune() -> None:
    """Let the runs of this process tune its heap. Threads started from now on share the main one: only one fragments.

    For a process that has nothing else to do, before it imports torch, which starts threads.
    """
    _Process.tuned = True
    _glibc("mallopt", _M_ARENA_MAX, 1)


RETURNED_AFTER = 4
"""Layers after which the memory of those that they replace is returned: it would stay in holes between smaller ones.

With it large-384 loads in 1.0 GB of int8, not 1.3, and 0.2 s later. After every layer it would be 0.7 s.
"""


def return_freed_memory() -> None:
    """Return memory freed so far to the system, if the heap is `tune`d."""
    if _Process.tuned:
        _glibc("malloc_trim", 0)


def keep_freed_memory() -> None:
    """Return memory freed so far to the system, and keep what is freed from now on, if the heap is `tune`d."""
    if not _Process.tuned:
        return
    return_freed_memory()
    if not _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE):
        _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE_OLD_GLIBC)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _LARGE)


class Heap:
    """The heap of this process, which from now on keeps freed memory, within a limit, if it is `tune`d."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._used: int | None = None

    def tidy(self) -> None:
        """Return freed memory to the system if the process is much larger than after the first call."""
        if not _Process.tuned:
            return
        size = _resident()
        if self._used is None:
            self._used = size
        elif size > self._used + _MAX_GROWTH:
            _glibc("malloc_trim", 0)


def _resident() -> int:
    """Resident bytes of the process."""
    try:
        with open("/proc/self/statm") as counts:
            return int(counts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux, and so not glibc
        return 0


def _glibc(function: str, *arguments: int) -> int:
    """Call a function that only glibc has and needs; 0 where it fails or is missing."""
    result: int = getattr(ctypes.CDLL(None), function, lambda *_: 0)(*arguments)
    return result
