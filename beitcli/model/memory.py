"""The C library's heap, held to what a model needs: neither given back and taken anew in every pass, nor growing.

By itself glibc maps large tensors from the system and gives them back when they are freed: base-224 takes 450 MB of
zeroed pages anew in each pass, up to half of its time. Kept in the heap they leave holes into which the next tensors do
not fit: over ten thousand pictures the peak grew by 170 MB.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # mallopt(3)

_LARGE, _LARGE_ONCE = 1 << 30, 1 << 25
"""Blocks of so many bytes still come from the system one by one; glibc before 2.35 takes no more than the second."""

_MOST_GROWTH = 64_000_000
"""Bytes that the process may grow by beyond its first pass before freed memory goes back."""


def use_one_heap() -> None:
    """Threads that are started from now on share the main heap, so that there is only one to have holes."""
    _glibc("mallopt", _M_ARENA_MAX, 1)


def keep_freed_memory() -> None:
    """The heap of this process is without what was freed before, and from now on keeps what is freed."""
    _glibc("malloc_trim", 0)
    if not _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE):
        _glibc("mallopt", _M_MMAP_THRESHOLD, _LARGE_ONCE)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _LARGE)


class Heap:
    """The heap of this process, which from now on keeps what is freed, but no more than it needs."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._used: int | None = None

    def tidy(self) -> None:
        """Gives freed memory back to the system if there is much more than after the first use."""
        size = _resident()
        if self._used is None:
            self._used = size
        elif size > self._used + _MOST_GROWTH:
            _glibc("malloc_trim", 0)


def _resident() -> int:
    """Bytes of memory that the process has."""
    try:
        with open("/proc/self/statm") as counts:
            return int(counts.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux, and so not glibc
        return 0


def _glibc(function: str, *arguments: int) -> int:
    """Calls what other C libraries neither have nor need; 0 where it is refused."""
    done: int = getattr(ctypes.CDLL(None), function, lambda *_: 0)(*arguments)
    return done
