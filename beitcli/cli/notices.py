"""What is said on stderr: notices and errors, one line each, and how far the run is."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from beitcli.records import printable

if TYPE_CHECKING:
    from beitcli.training.loop import Pace

log = logging.getLogger("beitcli")

PROGRESS_INTERVAL = 30.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


class _Lines(logging.Handler):
    """Writes `beit: message`, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"beit: {printable(record.getMessage())}")


def say(line: str) -> None:
    """Writes one line to stderr, above the progress bar if there is one; where nobody can read it, it is dropped."""
    tqdm = sys.modules.get("tqdm")
    try:
        if tqdm:
            tqdm.tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for the rest of the run


def set_up(quiet: bool, verbose: bool) -> None:
    """Notices of the library become lines on stderr: all of them, only what matters, or none."""
    log.handlers = [_Lines()]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


class Progress(Protocol):
    def update(self, count: int) -> object: ...


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Counts images: a bar where stderr is a terminal and stdout is not, else a line every half minute."""
    if not quiet and sys.stderr.isatty() and not (sys.stdout and sys.stdout.isatty()):
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # its thread would exist before the workers are forked
        with tqdm(unit=" images", dynamic_ncols=True, leave=False, file=sys.stderr) as bar:
            yield bar
    else:
        yield _PlainProgress(math.inf if quiet else PROGRESS_INTERVAL)


@contextmanager
def pace(quiet: bool) -> Iterator[Callable[["Pace"], None]]:
    """Tells how far a training is: a bar where stderr is a terminal, else a line every half minute."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(unit=" steps", dynamic_ncols=True, leave=False, file=sys.stderr) as bar:

            def draw(now: "Pace") -> None:
                bar.total, bar.n = now.steps, now.step
                bar.set_postfix_str(f"epoch {now.epoch:.1f}{_loss(now)}, {now.rate:.0f} images/s")

            yield draw
    else:
        yield _PlainPace()


class _PlainPace:
    def __init__(self) -> None:
        self._said = -math.inf

    def __call__(self, now: "Pace") -> None:
        if time.monotonic() - self._said >= PROGRESS_INTERVAL:
            self._said = time.monotonic()
            say(
                f"beit: epoch {now.epoch:.2f}, step {now.step} of {now.steps}{_loss(now)}, "
                f"{now.rate:.0f} images/s, {_duration(now.left)} left"
            )


def _loss(now: "Pace") -> str:
    return "" if now.loss is None else f", loss {now.loss:.3f}"


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


class _PlainProgress:
    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._images = 0
        self._started = self._said = time.monotonic()

    def update(self, count: int) -> None:
        self._images += count
        now = time.monotonic()
        if now - self._said >= self._interval:
            self._said = now
            say(f"beit: {self._images} images so far, {self._images / (now - self._started):.1f} images/s")
