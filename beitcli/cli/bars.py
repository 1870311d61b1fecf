"""Progress as bars on a terminal, one for every stage of a run."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from beitcli.cli.counting import Counting
from beitcli.cli.lines import loss_of, print_summary, workers_text
from beitcli.cli.notices import log
from beitcli.jobs.observer import Report

if TYPE_CHECKING:
    from tqdm import tqdm

    from beitcli.training.loop import TrainingProgress


class Bars:
    """One bar after the other on a terminal, each with the name of its stage, its count, rate and time left."""

    def __init__(self) -> None:
        self._name = ""
        self._bar: tqdm[Any] | None = None
        self._counts: Callable[[], Iterable[int]] | None = None
        self._counting: Counting | None = None

    def stage(self, name: str, total: int | None = None, unit: str = "images") -> None:
        """Replace the bar by one for the next stage."""
        from tqdm import tqdm

        self.close()
        tqdm.monitor_interval = 0  # its thread would start before the workers fork
        self._name = name
        self._bar = tqdm(
            desc=name,
            total=total,
            unit=f" {unit}",
            miniters=0,  # drawn by the clock alone: progress comes in batches
            dynamic_ncols=True,
            leave=False,
            file=sys.stderr,
        )

    def describe(self, name: str) -> None:
        """Show another name until the next progress."""
        if self._bar is not None:
            self._bar.set_description_str(name)

    def countable(self, counts: Callable[[], Iterable[int]]) -> None:
        """Count the units beside the run, from the first progress on."""
        self._counts = counts

    def progress(self, count: int) -> None:
        """Draw so many units more."""
        if self._bar is None:
            return
        if self._counts is not None:
            self._counting, self._counts = Counting(self._counts, partial(_set_total, self._bar)), None
        self._bar.set_description_str(self._name, refresh=False)
        self._bar.update(count)

    def kept(self, count: int) -> None:
        """Draw so many units more, which are no measure of the rate."""
        if self._bar is not None:
            self._bar.initial += count
            self._bar.n += count
            self._bar.last_print_n += count
            self._bar.update(0)

    def workers(self, count: int) -> None:
        """Draw the number of workers behind the rate."""
        if self._bar is not None:
            self._bar.set_postfix_str(workers_text(count))

    def step(self, now: "TrainingProgress") -> None:
        """Draw the state of a training."""
        if self._bar is not None:
            self._bar.set_description_str(self._name, refresh=False)
            self._bar.total, self._bar.n = now.steps, now.step
            self._bar.set_postfix_str(f"epoch {now.epoch:.1f}{loss_of(now)}, {now.rate:.0f} images/s")

    def summary(self, report: Report) -> None:
        """Print the summary lines."""
        print_summary(report)

    def close(self) -> None:
        """Remove the bar, and stop counting for it."""
        if self._counting is not None:
            self._counting.stop()
        if self._bar is not None:
            self._bar.close()
        self._bar = self._counts = self._counting = None


def _set_total(bar: "tqdm[Any]", total: int) -> None:
    bar.total = total
    bar.refresh()


@contextmanager
def describing(bars: Bars) -> Iterator[None]:
    """Show the `stage` of a log record, which names what the model is doing, on the bar."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if stage := getattr(record, "stage", None):
                bars.describe(stage)

    handler = Handler()
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
