"""Observers of a run: progress while it works, and its summary at the end or when it is stopped."""

from dataclasses import dataclass, field
from typing import Protocol

from beitcli.outputs.summary import Tally
from beitcli.timings import Timings


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of the requested images, and where the time went."""

    tally: Tally = field(default_factory=Tally)
    timings: Timings = field(default_factory=Timings)


class Observer(Protocol):
    """A listener of one run, called in the thread that runs it."""

    def progress(self, images: int) -> object:
        """Called with the number of images finished since the last call."""

    def summary(self, report: Report) -> object:
        """Called once, at the end of the run or when a signal stops it."""


class Silent:
    """An observer that drops everything."""

    def progress(self, images: int) -> None: ...

    def summary(self, report: Report) -> None: ...
