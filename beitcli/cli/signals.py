"""SIGINT and SIGTERM as one request to stop, that never splits what is being written."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Stopped(BaseException):
    """Someone asked the process to end; no `Exception`, so that nothing on the way takes it for a failure."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


class _Request:
    """What was asked for, and whether it has to wait: signals belong to the process, so there is one of these."""

    received: int | None = None
    held = False


def listen() -> None:
    """From now on SIGINT and SIGTERM raise `Stopped`; the second one ends the process at once."""
    signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGTERM, _handle)


@contextmanager
def held() -> Iterator[None]:
    """A request to stop that comes inside is kept until the end of the block."""
    _Request.held = True
    try:
        yield
    finally:
        _Request.held = False
    check()


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
