"""Times and rates: medians of repeated runs."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Effort:
    """Length of a measurement: at least so many repetitions and seconds; for whole processes, so many `rounds`."""

    repetitions: int
    seconds: float
    rounds: int


FULL = Effort(repetitions=3, seconds=1.0, rounds=3)
SMALL = Effort(repetitions=1, seconds=0.01, rounds=1)
"""For tests: just enough to run everything."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each repetition, and their median."""

    seconds: tuple[float, ...]
    median: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Amount per second, by the median time."""

    per_second: float
    timing: Timing


def timing_of(seconds: Iterable[float]) -> Timing:
    """These times and their median."""
    each = tuple(seconds)
    return Timing(each, median(each))


def rate_of(amount: float, seconds: Iterable[float]) -> Rate:
    """The rate of work that does `amount` each time, in these seconds."""
    timing = timing_of(seconds)
    return Rate(amount / timing.median, timing)


def measured_rate(amount: float, work: Callable[[], object], effort: Effort) -> Rate:
    """The rate of `work`, which does `amount` each time; the first run, which fills caches, does not count."""
    work()
    seconds: list[float] = []
    until = time.perf_counter() + effort.seconds
    while len(seconds) < effort.repetitions or time.perf_counter() < until:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return rate_of(amount, seconds)
