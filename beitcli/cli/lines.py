"""Progress as a line every half minute, and the summary of a run."""

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from beitcli.cli.notices import print_line
from beitcli.jobs.observer import Report

if TYPE_CHECKING:
    from beitcli.training.loop import TrainingProgress

PROGRESS_INTERVAL = 30.0
"""Seconds between two lines."""


class Lines:
    """A line every half minute."""

    def __init__(self) -> None:
        self._count, self._unit = 0, "images"
        self._started = self._reported = time.monotonic()
        self._step_reported = -math.inf
        self._workers = 0

    def stage(self, name: str, total: int | None = None, unit: str = "images") -> None:  # noqa: ARG002
        """Count from zero."""
        self._count, self._unit, self._started = 0, unit, time.monotonic()
        self._workers = 0

    def countable(self, counts: Callable[[], Iterable[int]]) -> None:
        """Count nothing: a line has no total."""

    def progress(self, count: int) -> None:
        """Print the count and the rate, if it is time."""
        self._count += count
        now = time.monotonic()
        if now - self._reported >= PROGRESS_INTERVAL:
            self._reported = now
            rate = self._count / (now - self._started)
            workers = f"{workers_text(self._workers)}, " if self._workers else ""
            print_line(f"beit: {self._count} {self._unit} so far, {workers}{rate:.1f} {self._unit}/s")

    def kept(self, count: int) -> None:
        """Print nothing: lines are about the work."""

    def workers(self, count: int) -> None:
        """Name the number of workers from now on."""
        self._workers = count

    def step(self, now: "TrainingProgress") -> None:
        """Print the state of a training, if it is time."""
        if time.monotonic() - self._step_reported >= PROGRESS_INTERVAL:
            self._step_reported = time.monotonic()
            print_line(
                f"beit: epoch {now.epoch:.2f}, step {now.step} of {now.steps}{loss_of(now)}, "
                f"{now.rate:.0f} images/s, {_duration(now.left)} left"
            )

    def summary(self, report: Report) -> None:
        """Print the summary lines."""
        print_summary(report)


def print_summary(report: Report) -> None:
    """Print the summary lines of a run, which scripts read, without a time."""
    for line in report.tally.lines(report.timings):
        print_line(line, timed=False)


def workers_text(count: int) -> str:
    """The number of workers."""
    return f"{count} worker{'s' * (count != 1)}"


def loss_of(now: "TrainingProgress") -> str:
    """Loss and validation accuracy as a part of a line, each from the first on."""
    loss = "" if now.loss is None else f", loss {now.loss:.3f}"
    return loss if now.accuracy is None else f"{loss}, accuracy {100 * now.accuracy:.1f} %"


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
