"""Notices, errors and progress on stderr."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from beitcli.cli.flags import Flag, in_flags
from beitcli.records import printable

if TYPE_CHECKING:
    from beitcli.jobs.observer import Report
    from beitcli.training.loop import TrainingProgress

log = logging.getLogger("beitcli")

PROGRESS_INTERVAL = 30.0
"""Seconds between two lines of progress without a terminal."""

flags: dict[str, Flag] = {}
"""The flags that lines on stderr name in place of the library's parameters; the command line adds its own."""


class _LineHandler(logging.Handler):
    """Log handler: print `beit: message`, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(f"beit: {printable(record.getMessage())}")


def print_line(line: str) -> None:
    """Print one line to stderr, its parameters as flags, above the progress bar; if stderr is closed, drop it."""
    line = in_flags(line, flags)
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
    """Print log messages on stderr: all if `verbose`, errors only if `quiet`, else from INFO up."""
    log.handlers = [_LineHandler()]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


class Progress(Protocol):
    def update(self, count: int) -> object: ...


@contextmanager
def progress(quiet: bool, records_on_stdout: bool = False) -> Iterator[Progress]:
    """Progress in images: a bar on a terminal that does not get the records too, else a line every half minute."""
    shares_terminal = records_on_stdout and sys.stdout is not None and sys.stdout.isatty()
    if not quiet and sys.stderr.isatty() and not shares_terminal:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # its thread would start before the workers fork
        with tqdm(unit=" images", dynamic_ncols=True, leave=False, file=sys.stderr) as bar:
            yield bar
    else:
        yield _PlainProgress(math.inf if quiet else PROGRESS_INTERVAL)


@contextmanager
def observer(quiet: bool, records_on_stdout: bool = False) -> Iterator["TerminalObserver"]:
    """An observer that draws progress on stderr and prints the summary there; a quiet one prints nothing."""
    with progress(quiet, records_on_stdout) as shown:
        yield TerminalObserver(shown, quiet)


class TerminalObserver:
    """Progress and summary of a run, for a person at a terminal or a log."""

    def __init__(self, shown: Progress, quiet: bool) -> None:
        self._shown = shown
        self._quiet = quiet

    def progress(self, images: int) -> None:
        """Draw so many images more."""
        self._shown.update(images)

    def summary(self, report: "Report") -> None:
        """Print the summary lines."""
        for line in () if self._quiet else report.tally.lines(report.timings):
            print_line(line)


@contextmanager
def training_progress(quiet: bool) -> Iterator[Callable[["TrainingProgress"], None]]:
    """Progress of a training: a bar if stderr is a terminal, else a line every half minute."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(unit=" steps", dynamic_ncols=True, leave=False, file=sys.stderr) as bar:

            def on_progress(now: "TrainingProgress") -> None:
                bar.total, bar.n = now.steps, now.step
                bar.set_postfix_str(f"epoch {now.epoch:.1f}{_loss(now)}, {now.rate:.0f} images/s")

            yield on_progress
    else:
        yield _PlainTrainingProgress()


class _PlainTrainingProgress:
    def __init__(self) -> None:
        self._reported = -math.inf

    def __call__(self, now: "TrainingProgress") -> None:
        if time.monotonic() - self._reported >= PROGRESS_INTERVAL:
            self._reported = time.monotonic()
            print_line(
                f"beit: epoch {now.epoch:.2f}, step {now.step} of {now.steps}{_loss(now)}, "
                f"{now.rate:.0f} images/s, {_duration(now.left)} left"
            )


def _loss(now: "TrainingProgress") -> str:
    return "" if now.loss is None else f", loss {now.loss:.3f}"


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


class _PlainProgress:
    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._images = 0
        self._started = self._reported = time.monotonic()

    def update(self, count: int) -> None:
        self._images += count
        now = time.monotonic()
        if now - self._reported >= self._interval:
            self._reported = now
            print_line(f"beit: {self._images} images so far, {self._images / (now - self._started):.1f} images/s")
