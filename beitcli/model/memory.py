"""The C library's heap, kept from growing over a long run.

Between the large tensors of one forward pass glibc's heap gets holes that those of the next do not fit into: over ten
thousand pictures the peak grew by 170 MB. What is here holds it, for a few hundredths of the smallest model's time.
"""

import ctypes
import time

_M_ARENA_MAX = -8  # mallopt(3)

_INTERVAL = 0.25
"""Seconds between two times that freed memory goes back to the system."""


def use_one_heap() -> None:
    """Threads that are started from now on share the main heap, so that there is only one to have holes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


class Heap:
    """The heap of this process, tidied now and then."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it, and needs it
        self._trimmed = time.monotonic()

    def tidy(self) -> None:
        """Gives freed memory back to the system, if that is a while ago."""
        if self._trim is not None and time.monotonic() - self._trimmed > _INTERVAL:
            self._trim(0)
            self._trimmed = time.monotonic()
