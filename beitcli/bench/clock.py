"""How long something takes: done again until there is enough to take the median of."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a measurement goes on: at least so often, and for so many seconds; whole processes, so many `rounds`."""

    repetitions: int
    seconds: float
    rounds: int


FULL = Effort(repetitions=3, seconds=1.0, rounds=3)
SMALL = Effort(repetitions=1, seconds=0.01, rounds=1)
"""For tests: enough to see that everything works, and nothing else."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds that something took each time, and their median."""

    seconds: tuple[float, ...]
    median: float


@dataclass(frozen=True, slots=True)
class Rate:
    """How much was done a second, by the median of the times that it was done."""

    per_second: float
    timing: Timing


def timing_of(seconds: Iterable[float]) -> Timing:
    """These times and their median."""
    each = tuple(seconds)
    return Timing(each, median(each))


def rate_of(amount: float, seconds: Iterable[float]) -> Rate:
    """The rate of something that did `amount` each time, in so many seconds."""
    timing = timing_of(seconds)
    return Rate(amount / timing.median, timing)


def measured_rate(amount: float, work: Callable[[], object], effort: Effort) -> Rate:
    """The rate of `work`, which does `amount` each time; the first time, which fills caches, does not count."""
    work()
    seconds: list[float] = []
    until = time.perf_counter() + effort.seconds
    while len(seconds) < effort.repetitions or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return rate_of(amount, seconds)
