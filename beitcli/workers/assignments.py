"""Assignments: numbered sources, the workers that owe them, and their records once they are due.

What a lost worker owed is done by others, on its own, until it is known which image costs workers.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic

from beitcli.records import Failure, Fetched, Found, Identity, ResultRecord, Source
from beitcli.workers.messages import Chunk, Outcome, Place, host_of
from beitcli.workers.run import Countable, PooledRun

AHEAD = 2
"""Chunks that a worker has, beyond those it has begun with."""

WINDOW = 16_384
"""Images read from the inputs whose records have not been given yet."""

_LOSSES = 2

_LATE = 15.0
"""Seconds after which the images that wait for a worker are given to others, if it has not said a word."""


@dataclass(slots=True, eq=False)
class Portion:
    """Numbers given to one worker together, and how often they were lost so."""

    numbers: list[int]
    losses: int = 0


@dataclass(slots=True, eq=False)
class Worker:
    """A worker as the run sees it; `room` is the number of chunks that it would take now."""

    key: int
    place: Place
    started: float = field(default_factory=time.monotonic)
    is_up: bool = False
    is_equipped: bool = False
    is_ready: bool = False
    is_draining: bool = False
    room: int = AHEAD
    owed: dict[int, Portion] = field(default_factory=dict)
    queued: deque[int] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """In place of a record: the run has the result of an identical image."""

    source: Source
    identity: Identity


class Assignments(Generic[ResultRecord]):
    """The sources of a run, given to its workers `chunk` at a time.

    `workers` are those that are starting or there, by their keys.
    """

    def __init__(self, run: PooledRun[ResultRecord], workers: Mapping[int, Worker], chunk: int) -> None:
        self.chunk = chunk
        self._run = run
        self._workers = workers
        self._next = 0
        self._head = 0
        self._items: dict[int, Found | Fetched] = {}
        self._finished: dict[int, ResultRecord | Failure | Elsewhere | None] = {}
        self._suspects: deque[Portion] = deque()
        self._again: dict[int, bytes] = {}
        self._homeless: deque[int] = deque()
        self._owners: dict[str, int] = {}
        self._is_exhausted = False

    @property
    def is_done(self) -> bool:
        """True if every input has been read, and its record given."""
        return self._is_exhausted and not self._items and not self._finished

    def has_suspects_for(self, worker: Worker) -> bool:
        """True if something was lost that this worker may have."""
        return any(self._may_have(worker, number) for portion in self._suspects for number in portion.numbers)

    def suspects_for(self, worker: Worker) -> Portion:
        """The first of what was lost that this worker may have, which has to be done alone."""
        for _ in range(len(self._suspects)):
            portion = self._suspects.popleft()
            own = [number for number in portion.numbers if self._may_have(worker, number)]
            others = [number for number in portion.numbers if not self._may_have(worker, number)]
            if others:
                self._suspects.append(Portion(others, portion.losses))
            if own:
                return Portion(own, portion.losses)
        raise LookupError

    def chunk_of(self, worker: Worker, portion: Portion) -> Chunk:
        """The portion as the worker gets it, which owes it from now on."""
        numbers = tuple(portion.numbers)
        computed = frozenset(self._again.pop(number) for number in numbers if number in self._again)
        worker.owed.update(dict.fromkeys(numbers, portion))
        return Chunk(numbers, tuple(self._items[number] for number in numbers), computed)

    def _may_have(self, worker: Worker, number: int) -> bool:
        host = self._host(number)
        return host is None or self._owner(host) is worker

    def next_for(self, worker: Worker, found: Countable) -> Portion | None:
        """The next numbers for this worker, those that wait for it first; None where there are none now."""
        for other in self._workers.values():
            if _is_late(other):
                self._homeless.extend(other.queued)
                other.queued.clear()
        for _ in range(len(self._homeless)):
            number = self._homeless.popleft()
            (worker.queued.append if self._may_have(worker, number) else self._queue)(number)
        numbers = [worker.queued.popleft() for _ in range(min(self.chunk, len(worker.queued)))]
        while len(numbers) < self.chunk and not self._is_exhausted and self._has_room():
            new = self._read(found)
            if new is not None:
                (numbers.append if self._may_have(worker, new) else self._queue)(new)
        return Portion(numbers) if numbers else None

    def _has_room(self) -> bool:
        if self._run.ordered:
            return self._next - self._head < WINDOW
        return len(self._items) < WINDOW

    def _read(self, found: Countable) -> int | None:
        """The number of the next input, or None where it needs no worker, or there is none."""
        item: Found | Fetched | None = next(found, None)
        if item is None:
            self._is_exhausted = True
            return None
        number, self._next = self._next, self._next + 1
        if isinstance(item, Source) and item.kind == "stdin":
            from beitcli.inputs.fetch import read_standard_input

            item = read_standard_input(item)
        if isinstance(item, Failure):
            self._finished[number] = item
            return None
        self._items[number] = item
        return number

    def _host(self, number: int) -> str | None:
        item = self._items[number]
        return host_of(item) if isinstance(item, Source) else None

    def _owner(self, host: str) -> Worker | None:
        """The one worker that fetches from the host, so that it gets no more requests at a time than from one run."""
        owner = self._workers.get(self._owners.get(host, 0))
        if owner is None or _is_late(owner):
            counts = {key: 0 for key, worker in self._workers.items() if not _is_late(worker)}
            if not counts:
                return None
            for key in self._owners.values():
                if key in counts:
                    counts[key] += 1
            owner = self._workers[min(counts, key=lambda key: counts[key])]
            self._owners[host] = owner.key
        return owner

    def _queue(self, number: int) -> None:
        """Let the number of a URL wait for the worker that may have it."""
        owner = self._owner(self._host(number) or "")
        (owner.queued if owner else self._homeless).append(number)

    def take(self, worker: Worker, outcomes: Iterable[Outcome]) -> None:
        """Take what the worker has done; what it does not owe any more is dropped."""
        for outcome in outcomes:
            if worker.owed.pop(outcome.number, None) is not None:
                self._finish(outcome.number, self._result(outcome))

    def _finish(self, number: int, record: ResultRecord | Failure | Elsewhere | None) -> None:
        self._finished[number] = record
        if not isinstance(record, Elsewhere):
            del self._items[number]

    def _result(self, outcome: Outcome) -> ResultRecord | Failure | Elsewhere | None:
        item = self._items[outcome.number]
        source = item.source if isinstance(item, Failure | Fetched) else item
        if outcome.is_unchanged:
            return None
        if outcome.failure is not None:
            return Failure(source, *outcome.failure, outcome.identity)
        if isinstance(outcome.result, tuple) and not outcome.result:
            return Elsewhere(source, outcome.identity)
        return self._run.record(source, outcome.result, outcome.identity, outcome.reused)

    def completed(self) -> Iterator[list[ResultRecord | Failure]]:
        """The records that are due; a result that is elsewhere is looked up once those before it are stored."""
        records: list[ResultRecord | Failure] = []
        for number in self._due():
            record = self._finished.pop(number)
            if isinstance(record, Elsewhere):
                if records:
                    yield records
                    records = []
                result = self._run.known.result_of(record.identity.digest or b"")
                if result is None:  # it cannot be read, or not used in this run
                    self._again[number] = record.identity.digest or b""
                    self._homeless.append(number)
                    continue
                del self._items[number]
                record = self._run.record(record.source, result, record.identity, True)
            if number == self._head:
                self._head += 1
            if record is not None:
                records.append(record)
        if records:
            yield records

    def _due(self) -> Iterator[int]:
        """The numbers of finished images that are due, in order."""
        if not self._run.ordered:
            yield from sorted(self._finished)
            return
        while self._head in self._finished:
            yield self._head

    def lose(self, worker: Worker, reason: str) -> None:
        """Let others do what a lost worker, which is none of the workers any more, owed."""
        self._homeless.extend(worker.queued)
        for portion in dict.fromkeys(worker.owed.values()):
            self._suspect([number for number in portion.numbers if number in worker.owed], portion.losses + 1, reason)

    def _suspect(self, numbers: list[int], losses: int, reason: str) -> None:
        """Let these numbers be done on their own; halve them after two losses."""
        if losses < _LOSSES:
            self._suspects.append(Portion(numbers, losses))
        elif len(numbers) > 1:
            half = len(numbers) // 2
            for part in (numbers[:half], numbers[half:]):
                self._suspects.append(Portion(part, _LOSSES - 1 if len(part) > 1 else 0))
        else:
            [number] = numbers
            item = self._items[number]
            source = item.source if isinstance(item, Failure | Fetched) else item
            self._finish(number, Failure(source, "worker_lost", f"its worker was lost twice ({reason})"))


def _is_late(worker: Worker) -> bool:
    """True if the worker has not come up in the usual time: there may be no room for it for long."""
    return not worker.is_up and time.monotonic() - worker.started > _LATE
