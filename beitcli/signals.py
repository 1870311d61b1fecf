"""SIGINT, SIGTERM and SIGHUP as one request to stop, which never interrupts a write halfway."""

import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from beitcli.errors import BeitError

GRACE = 5.0
"""Seconds that the model has to finish its batch after a request to stop."""


_RETRY_AFTER = 0.05
"""Seconds after which a lost request is raised again."""


class Stopped(BaseException):
    """A request to end the process; not an `Exception`, so that no handler treats it as a failure."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class _Request:
    """The pending request, and how long it has to wait: one per process, as signals are."""

    received: int | None = None
    held: float = 0.0
    lost = False


def listen() -> None:
    """Make SIGINT, SIGTERM and SIGHUP raise `Stopped` from now on; a second SIGINT or SIGTERM ends the process at once.

    Under nohup SIGHUP stays ignored. SIGUSR1 and SIGUSR2, by which schedulers warn, are ignored too.
    """
    signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGTERM, _handle)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _handle)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _raise)
    sys.unraisablehook = _raise_again


@contextmanager
def held(seconds: float = math.inf) -> Iterator[None]:
    """Keep a request to stop that arrives inside for `check`, unless the block runs for so many more seconds."""
    outer, _Request.held = _Request.held, seconds
    try:
        yield
    finally:
        _Request.held = outer
        if _Request.received is not None:
            grace = outer if outer < math.inf else 0
            signal.setitimer(signal.ITIMER_REAL, grace or (_RETRY_AFTER if _Request.lost else 0))


def check() -> None:
    """Raise `Stopped` if a request to stop has arrived."""
    if _Request.received is not None:
        raise Stopped(_Request.received)


@contextmanager
def outlasting_errors() -> Iterator[None]:
    """Raise `Stopped` in place of an exception that follows a request to stop which others have swallowed.

    Imports swallow it: numpy, interrupted inside of torch, then fails with an ImportError of its own.
    """
    try:
        yield
    except BeitError:
        raise
    except Exception as error:
        if _Request.received is not None:
            raise Stopped(_Request.received) from error
        raise


def die_by(signal_number: int) -> NoReturn:
    """End the process by the signal, so that a shell or a supervisor sees the cause."""
    signal.signal(signal_number, signal.SIG_DFL)
    os.kill(os.getpid(), signal_number)
    raise SystemExit(128 + signal_number)  # where the signal is blocked


def _handle(signal_number: int, _frame: FrameType | None) -> None:
    if _Request.received is not None:
        if signal_number == signal.SIGHUP:  # from the shell as well as from its terminal
            return
        die_by(signal_number)
    _Request.received = signal_number
    if not _Request.held:
        raise Stopped(signal_number)
    if _Request.held < math.inf:
        signal.setitimer(signal.ITIMER_REAL, _Request.held)


def _raise(_signal: int, _frame: FrameType | None) -> None:
    if _Request.received is None:
        return
    if _Request.lost and _Request.held == math.inf:  # finish the current write first
        signal.setitimer(signal.ITIMER_REAL, _RETRY_AFTER)
    elif _Request.held or _Request.lost:
        raise Stopped(_Request.received)


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raise `Stopped` again if it was raised in a destructor, which swallows exceptions."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    _Request.lost = True
    signal.setitimer(signal.ITIMER_REAL, _RETRY_AFTER)
