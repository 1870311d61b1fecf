"""Observers of a run: progress while it works, and its summary at the end or when it is stopped."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from beitcli.outputs.summary import Tally
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.training.loop import TrainingProgress


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of the requested images, and where the time went."""

    tally: Tally = field(default_factory=Tally)
    timings: Timings = field(default_factory=Timings)


class Observer(Protocol):
    """A listener of one run, called in the thread that runs it."""

    def stage(self, name: str, total: int | None = None, unit: str = "images") -> object:
        """Called where a stage of the run begins, with the number of its units if that is known."""

    def countable(self, counts: Callable[[], Iterable[int]]) -> object:
        """Called after `stage` if its total is unknown but `counts` finds it, as many numbers whose sum it is.

        The run never calls it; an observer may, in a thread, once the first progress is made: until then it would delay
        the run, and the processes that decode have not been forked.
        """

    def progress(self, count: int) -> object:
        """Called with the number of units of the stage finished since the last call."""

    def kept(self, count: int) -> object:
        """Called with the number of units that need no work, found since the last call."""

    def workers(self, count: int) -> object:
        """Called with the number of workers that are ready, whenever it changes, in a run that has some."""

    def step(self, now: "TrainingProgress") -> object:
        """Called after each step of a training but the first."""

    def summary(self, report: Report) -> object:
        """Called once, at the end of a run over images or when a signal stops it."""


def stage_of(observer: Observer, name: str, unit: str = "images") -> Callable[[int, int], None]:
    """A callback for the number of units done and that of all: with none done, it begins the stage."""
    before = 0

    def report(done: int, total: int) -> None:
        nonlocal before
        if done:
            observer.progress(done - before)
        else:
            observer.stage(name, total, unit)
        before = done

    return report


class Silent:
    """An observer that drops everything."""

    def stage(self, name: str, total: int | None = None, unit: str = "images") -> None: ...

    def countable(self, counts: Callable[[], Iterable[int]]) -> None: ...

    def progress(self, count: int) -> None: ...

    def kept(self, count: int) -> None: ...

    def workers(self, count: int) -> None: ...

    def step(self, now: "TrainingProgress") -> None: ...

    def summary(self, report: Report) -> None: ...
