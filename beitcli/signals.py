"""SIGINT and SIGTERM as one request to stop, that never splits what is being written."""

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

GRACE = 5.0
"""Seconds that the model may go on after a request to stop, to finish its batch."""


_AGAIN = 0.05
"""Seconds after which a request that got lost is raised again."""


class Stopped(BaseException):
    """Someone asked the process to end; no `Exception`, so that nothing on the way takes it for a failure."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class _Request:
    """What was asked for, and how long it has to wait: signals belong to the process, so there is one of these."""

    received: int | None = None
    held: float = 0.0
    lost = False


def listen() -> None:
    """From now on SIGINT and SIGTERM raise `Stopped`; the second one ends the process at once."""
    signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGTERM, _handle)
    signal.signal(signal.SIGALRM, _raise)
    sys.unraisablehook = _lost


@contextmanager
def held(seconds: float = math.inf) -> Iterator[None]:
    """A request to stop that comes inside is kept for `check`, unless the block goes on for so many seconds more."""
    around, _Request.held = _Request.held, seconds
    try:
        yield
    finally:
        _Request.held = around
        if _Request.received is not None:
            grace = around if around < math.inf else 0
            signal.setitimer(signal.ITIMER_REAL, grace or (_AGAIN if _Request.lost else 0))


def check() -> None:
    """Raises `Stopped` if a request to stop has come."""
    if _Request.received is not None:
        raise Stopped(_Request.received)


def die_by(signal_number: int) -> NoReturn:
    """Ends the process by the signal, so that a shell or a supervisor sees what happened."""
    signal.signal(signal_number, signal.SIG_DFL)
    os.kill(os.getpid(), signal_number)
    raise SystemExit(128 + signal_number)  # where the signal is blocked


def _handle(signal_number: int, _frame: FrameType | None) -> None:
    if _Request.received is not None:
        die_by(signal_number)
    _Request.received = signal_number
    if not _Request.held:
        raise Stopped(signal_number)
    if _Request.held < math.inf:
        signal.setitimer(signal.ITIMER_REAL, _Request.held)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    if _Request.received is None:
        return
    if _Request.lost and _Request.held == math.inf:  # what is being written now is whole first
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    elif _Request.held or _Request.lost:
        raise Stopped(_Request.received)


def _lost(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raises `Stopped` once more where it came while a destructor ran, out of which nothing is raised."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    _Request.lost = True
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
