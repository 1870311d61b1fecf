"""The pool: numbered sources -> workers -> records in order, whatever becomes of a worker.

One piece of code knows which sources each worker owes. What a lost worker owed is given to others, on its own, until it
is known which image costs workers.
"""

import json
import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Generic

from beitcli import signals
from beitcli.errors import BeitError, UsageError
from beitcli.records import Failure, Fetched, Found, Identity, ResultRecord, Source
from beitcli.workers import messages
from beitcli.workers.messages import Chosen, Outcome, Place, host_of
from beitcli.workers.run import Countable, Engine, PooledRun
from beitcli.workers.versions import versions

log = logging.getLogger(__name__)

CHUNK = 64
"""Images that a worker gets at once."""

AHEAD = 2
"""Chunks that a worker has, beyond those it has begun with."""

WINDOW = 16_384
"""Images read from the inputs whose records have not been given yet."""

PROBES = 8
"""Images that every worker has to see before it begins."""

PATIENCE = 60.0
"""Seconds without any worker after which the run ends."""

PATIENCE_FOR_PLACES = 30.0
"""The same where no machine could have one."""

MOST_KNOWN = 2_000_000
"""Most digests of images with a result that workers get: 8 bytes each."""

_MOST_FAILED_STARTS = 3
_POLL = 0.5
_LOSSES = 2


@dataclass(slots=True, eq=False)
class _Portion:
    """Numbers given to one worker together, and how often they were lost so."""

    numbers: list[int]
    losses: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker as the run sees it; `room` is the number of chunks that it would take now."""

    key: int
    place: Place
    is_up: bool = False
    is_ready: bool = False
    is_draining: bool = False
    room: int = AHEAD
    owed: dict[int, _Portion] = field(default_factory=dict)
    queued: deque[int] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """In place of a record: the run has the result of an identical image."""

    source: Source
    identity: Identity


class Pool(Generic[ResultRecord]):
    """Workers of an engine, for one run."""

    def __init__(self, engine: Engine, run: PooledRun[ResultRecord], chunk: int = CHUNK) -> None:
        self._engine = engine
        self._run = run
        self._here = versions()
        self._chunk = chunk
        self._workers: dict[int, _Worker] = {}
        self._failed_starts: dict[Place, int] = {}
        self._last_reason = ""
        self._last_up = time.monotonic()
        self._chosen: Chosen | None = None
        self._hardware: str | None = None
        self._notices: set[str] = set()
        self._counts: dict[int, int] = {}
        self._files: dict[str, bytes] | None = None
        self._known = b""
        self._images: tuple[str, ...] = ()
        self._ready = 0
        # numbers of sources: those that have no record yet, and records that wait for one before them
        self._next = 0
        self._head = 0
        self._items: dict[int, Found | Fetched] = {}
        self._finished: dict[int, ResultRecord | Failure | _Elsewhere | None] = {}
        self._suspects: deque[_Portion] = deque()
        self._again: dict[int, bytes] = {}
        self._homeless: deque[int] = deque()
        self._owners: dict[str, int] = {}
        self._is_exhausted = False
        self._most_workers: int | None = None

    def records(self, found: Countable) -> Generator[list[ResultRecord | Failure], None, None]:
        """The records of the inputs, in lists, each as soon as it is there.

        Raises ModelError and DeviceError of a worker, and BeitError where no worker is ready in time.
        """
        with closing(self._engine):
            self._begin(found)
            while True:
                self._start_workers()
                yield from self._completed()
                for worker in list(self._workers.values()):
                    self._give(worker, found)
                yield from self._completed()
                if self._is_exhausted and not self._items and not self._finished:
                    return
                for key, message in self._engine.wait(_POLL):
                    self._handle(key, message, found)
                signals.check()
                self._check_patience()

    # Starting

    def _begin(self, found: Countable) -> None:
        places = len(self._engine.places())
        if self._run.countable and places:
            enough = 2 * self._chunk * places
            count = found.count(enough)
            if count < enough:
                self._most_workers = min(places, count)
                self._chunk = max(1, -(-count // (2 * places)))
        if not self._engine.is_here:
            first = found.peek(PROBES if self._run.countable else 1)
            paths = [item.location for item in first if isinstance(item, Source) and item.kind == "path"]
            self._images = tuple(filter(os.path.lexists, paths))
        self._known = self._run.known.digests(MOST_KNOWN)
        self._last_up = time.monotonic()

    def _start_workers(self) -> None:
        """Start a worker at every place without one, unless none lives there."""
        taken = {worker.place for worker in self._workers.values()}
        for place in self._engine.places():
            is_full = self._most_workers is not None and len(self._workers) >= self._most_workers
            if place not in taken and not is_full and self._failed_starts.get(place, 0) < _MOST_FAILED_STARTS:
                key = self._engine.start(place)
                self._workers[key] = _Worker(key, place)

    def _check_patience(self) -> None:
        """Raises BeitError where no worker is up, and none can be expected."""
        places = self._engine.places()
        if any(worker.is_up for worker in self._workers.values()):
            self._last_up = time.monotonic()
            return
        if self._engine.is_here and all(self._failed_starts.get(place, 0) >= _MOST_FAILED_STARTS for place in places):
            raise BeitError(f"no worker can be started: {self._last_reason}")
        patience = PATIENCE if places else PATIENCE_FOR_PLACES
        if time.monotonic() - self._last_up > patience:
            raise BeitError(f"no worker was ready for {patience:.0f} s: {self._engine.excuse()}")

    def _greet(self, worker: _Worker, hello: Mapping[str, Any]) -> None:
        """Check the versions of a worker that is up, and tell it what to compute."""
        worker.is_up = True
        differing = [
            f"{package} {version} instead of {self._here.get(package)}"
            for package, version in hello["versions"].items()
            if version != self._here.get(package)
        ]
        if differing:
            raise BeitError(
                f"{worker.place.name} has {', '.join(differing)}", "all machines of a run need the same versions"
            )
        self._send(worker, self._setup(worker))

    def _setup(self, worker: _Worker) -> messages.Setup:
        run = self._run
        level = logging.getLogger("beitcli").getEffectiveLevel()
        return messages.Setup(run.plan, worker.place, os.getcwd(), self._images, run.digest, self._known, level)

    def _propose(self, worker: _Worker, proposal: messages.Proposal) -> None:
        """Take the settings of the first worker for all, and say where another one's hardware differs."""
        if self._chosen is None:
            self._chosen = self._run.decide(proposal.chosen)
            self._hardware = proposal.hardware
            self._run.timings.restart()
        elif proposal.hardware != self._hardware:
            text = f"{worker.place.name} computes on {proposal.hardware}, others on {self._hardware}"
            if self._run.strict:
                raise UsageError(f"{text}, and `strict=True` allows no difference", "leave it out, or leave one out")
            self._notify(logging.WARNING, "workers differ in hardware: last digits of scores may depend on the worker")
            log.debug("%s", text)
        self._send(worker, messages.Begin(self._chosen))
        worker.is_ready = True
        self._failed_starts.pop(worker.place, None)
        self._tell_workers()

    def _tell_workers(self) -> None:
        ready = sum(worker.is_ready for worker in self._workers.values())
        if ready != self._ready:
            self._ready = ready
            self._run.on_workers(ready)

    # Messages

    def _handle(self, key: int, data: bytes | str, found: Countable) -> None:
        worker = self._workers.get(key)
        if worker is None:
            return
        if isinstance(data, str):
            self._lose(worker, data)
            return
        if not worker.is_up:
            self._greet(worker, json.loads(data))
            return
        match pickle.loads(data):  # noqa: S301  # from a process of this run
            case messages.Done() as done:
                self._take(worker, done)
            case messages.More():
                worker.room = min(AHEAD, worker.room + 1)
            case messages.Drained():
                worker.is_draining, worker.room = False, AHEAD
            case messages.Notice() as notice:
                self._notify(notice.level, notice.text, notice.stage)
            case messages.Count() as question:
                if question.limit not in self._counts:
                    self._counts[question.limit] = found.count(question.limit)
                self._send(worker, messages.Counted(self._counts[question.limit]))
            case messages.Proposal() as proposal:
                self._propose(worker, proposal)
            case messages.Unequipped() as unequipped:
                self._equip(worker, unequipped.folder)
            case messages.Unseen() as unseen:
                raise BeitError(
                    f"`{unseen.path}` is not on {worker.place.name}", "every machine has to see the images at one path"
                )
            case messages.Broken() as broken:
                raise self._explained(worker, broken.error)
            case other:
                raise AssertionError(other)

    def _explained(self, worker: _Worker, error: BaseException) -> BaseException:
        """The error, which on another machine names it."""
        if self._engine.is_here or not isinstance(error, BeitError):
            return error
        return type(error)(f"{worker.place.name}: {error}", error.hint)

    def _send(self, worker: _Worker, message: object) -> None:
        self._engine.send(worker.key, pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def _equip(self, worker: _Worker, folder: str) -> None:
        """Send the checkpoint's files to the worker's machine."""
        from beitcli.workers.checkpoints import files_of

        if self._files is None:
            self._files = files_of(self._run.plan.checkpoint)
        log.debug("the model is sent to %s", worker.place.name)
        self._engine.install(worker.key, self._files, folder)
        self._send(worker, self._setup(worker))

    def _notify(self, level: int, text: str, stage: str | None = None) -> None:
        """Log what a worker says, once however many say it."""
        if text not in self._notices:
            self._notices.add(text)
            log.log(level, "%s", text, extra={"stage": stage})

    # Work

    def _give(self, worker: _Worker, found: Countable) -> None:
        """Give the worker what it has room for; have it drained where nothing else can come."""
        while worker.is_ready and not worker.is_draining and worker.room:
            suspect = self._suspect_for(worker)
            if suspect is not None:
                if not worker.owed:
                    self._send_portion(worker, suspect)
                    self._drain(worker)
                    return
                self._suspects.appendleft(suspect)
                break
            numbers = self._numbers_for(worker, found)
            if not numbers:
                break
            self._send_portion(worker, _Portion(numbers))
        if worker.is_ready and not worker.is_draining and worker.room == AHEAD and worker.owed:
            self._drain(worker)

    def _drain(self, worker: _Worker) -> None:
        self._send(worker, messages.Drain())
        worker.is_draining = True

    def _send_portion(self, worker: _Worker, portion: _Portion) -> None:
        numbers = portion.numbers
        computed = frozenset(self._again.pop(number) for number in numbers if number in self._again)
        worker.owed.update(dict.fromkeys(numbers, portion))
        worker.room -= 1
        self._send(worker, messages.Chunk(tuple(numbers), tuple(self._items[number] for number in numbers), computed))

    def _suspect_for(self, worker: _Worker) -> _Portion | None:
        """The part of a portion that was lost which this worker may have, taken out."""
        for _ in range(len(self._suspects)):
            portion = self._suspects.popleft()
            own = [number for number in portion.numbers if self._may_have(worker, number)]
            if len(own) < len(portion.numbers):
                others = [number for number in portion.numbers if number not in set(own)]
                self._suspects.append(_Portion(others, portion.losses))
            if own:
                return _Portion(own, portion.losses)
        return None

    def _may_have(self, worker: _Worker, number: int) -> bool:
        host = self._host(number)
        return host is None or self._owner(host) is worker

    def _numbers_for(self, worker: _Worker, found: Countable) -> list[int]:
        """The next numbers for this worker: those that wait for it, then new ones."""
        for _ in range(len(self._homeless)):
            number = self._homeless.popleft()
            (worker.queued.append if self._may_have(worker, number) else self._queue)(number)
        numbers = [worker.queued.popleft() for _ in range(min(self._chunk, len(worker.queued)))]
        while len(numbers) < self._chunk and not self._is_exhausted and self._has_room():
            new = self._read(found)
            if new is not None:
                (numbers.append if self._may_have(worker, new) else self._queue)(new)
        return numbers

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

    def _owner(self, host: str) -> _Worker | None:
        """The one worker that fetches from the host, so that it gets no more requests at a time than from one run."""
        owner = self._workers.get(self._owners.get(host, 0))
        if owner is None and self._workers:
            counts = dict.fromkeys(self._workers, 0)
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

    # Results and losses

    def _take(self, worker: _Worker, done: messages.Done) -> None:
        self._run.timings.network += done.seconds[0]
        self._run.timings.decoding += done.seconds[1]
        self._run.timings.model += done.seconds[2]
        for outcome in done.outcomes:
            if worker.owed.pop(outcome.number, None) is not None:
                self._finish(outcome.number, self._result(outcome))

    def _finish(self, number: int, record: ResultRecord | Failure | _Elsewhere | None) -> None:
        self._finished[number] = record
        if not isinstance(record, _Elsewhere):
            del self._items[number]

    def _result(self, outcome: Outcome) -> ResultRecord | Failure | _Elsewhere | None:
        item = self._items[outcome.number]
        source = item.source if isinstance(item, Failure | Fetched) else item
        if outcome.is_unchanged:
            return None
        if outcome.failure is not None:
            return Failure(source, *outcome.failure, outcome.identity)
        if isinstance(outcome.result, tuple) and not outcome.result:
            return _Elsewhere(source, outcome.identity)
        return self._run.record(source, outcome.result, outcome.identity, outcome.reused)

    def _completed(self) -> Iterator[list[ResultRecord | Failure]]:
        """The records that are due; a result that is elsewhere is looked up once those before it are stored."""
        records: list[ResultRecord | Failure] = []
        for number in self._due():
            record = self._finished.pop(number)
            if isinstance(record, _Elsewhere):
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

    def _lose(self, worker: _Worker, reason: str) -> None:
        """Let others do what a lost worker owed."""
        del self._workers[worker.key]
        self._engine.drop(worker.key)
        self._last_reason = f"{worker.place.name}: {reason}"
        self._homeless.extend(worker.queued)
        if not worker.is_ready:
            self._failed_starts[worker.place] = self._failed_starts.get(worker.place, 0) + 1
        log.info("%s was lost (%s): others do its %d images", worker.place.name, reason, len(worker.owed))
        for portion in dict.fromkeys(worker.owed.values()):
            self._suspect([number for number in portion.numbers if number in worker.owed], portion.losses + 1, reason)
        self._tell_workers()

    def _suspect(self, numbers: list[int], losses: int, reason: str) -> None:
        """Let these numbers be done on their own; halve them after two losses."""
        if losses < _LOSSES:
            self._suspects.append(_Portion(numbers, losses))
        elif len(numbers) > 1:
            half = len(numbers) // 2
            for part in (numbers[:half], numbers[half:]):
                self._suspects.append(_Portion(part, _LOSSES - 1 if len(part) > 1 else 0))
        else:
            [number] = numbers
            item = self._items[number]
            source = item.source if isinstance(item, Failure | Fetched) else item
            self._finish(number, Failure(source, "worker_lost", f"its worker was lost twice ({reason})"))
