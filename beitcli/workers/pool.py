"""The pool: the workers of a run, from their start to their end, and the messages to and from them."""

import json
import logging
import os
import pickle
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, Generic

from beitcli import signals
from beitcli.errors import MAKE_ROOM, BeitError, UsageError
from beitcli.records import Failure, ResultRecord, Source
from beitcli.workers import messages
from beitcli.workers.assignments import AHEAD, Assignments, Worker
from beitcli.workers.messages import Chosen, Place
from beitcli.workers.run import Countable, Engine, PooledRun
from beitcli.workers.versions import versions

log = logging.getLogger(__name__)

CHUNK = 64
"""Images that a worker gets at once."""

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


class Pool(Generic[ResultRecord]):
    """Workers of an engine, for one run."""

    def __init__(self, engine: Engine, run: PooledRun[ResultRecord], chunk: int = CHUNK) -> None:
        self._engine = engine
        self._run = run
        self._here = versions()
        self._clock = ExitStack()
        self._workers: dict[int, Worker] = {}
        self._failed_starts: dict[Place, int] = {}
        self._last_reason = ""
        self._last_up = time.monotonic()
        self._chosen: Chosen | None = None
        self._hardware: str | None = None
        self._notices: set[str] = set()
        self._counts: dict[int, int] = {}
        self._known = b""
        self._images: tuple[str, ...] = ()
        self._ready = 0
        self._work: Assignments[ResultRecord] = Assignments(run, self._workers, chunk)
        self._most_workers: int | None = None

    def records(self, found: Countable) -> Generator[list[ResultRecord | Failure], None, None]:
        """The records of the inputs, in lists, each as soon as it is there.

        Raises ModelError and DeviceError of a worker, and BeitError where no worker is ready in time.
        """
        with closing(self._engine), self._clock:
            self._begin(found)
            while True:
                self._start_workers()
                yield from self._work.completed()
                for worker in list(self._workers.values()):
                    self._give(worker, found)
                yield from self._work.completed()
                if self._work.is_done:
                    return
                for key, message in self._engine.wait(_POLL):
                    self._handle(key, message, found)
                signals.check()
                self._check_patience()

    # Starting

    def _begin(self, found: Countable) -> None:
        places = len(self._engine.places())
        if self._run.countable and places:
            enough = 2 * self._work.chunk * places
            count = found.count(enough)
            if count < enough:
                self._most_workers = min(places, count)
                self._work.chunk = max(1, -(-count // (2 * places)))
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
                self._workers[key] = Worker(key, place)

    def _check_patience(self) -> None:
        """Raise BeitError where no worker is up, and none can be expected."""
        places = self._engine.places()
        if any(worker.is_up for worker in self._workers.values()):
            self._last_up = time.monotonic()
            return
        if self._engine.is_here and all(self._failed_starts.get(place, 0) >= _MOST_FAILED_STARTS for place in places):
            raise BeitError(f"no worker can be started: {self._last_reason}")
        patience = PATIENCE if places else PATIENCE_FOR_PLACES
        if time.monotonic() - self._last_up > patience:
            raise BeitError(f"no worker was ready for {patience:.0f} s: {self._engine.excuse()}")

    def _greet(self, worker: Worker, hello: Mapping[str, Any]) -> None:
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

    def _setup(self, worker: Worker) -> messages.Setup:
        run = self._run
        level = logging.getLogger("beitcli").getEffectiveLevel()
        return messages.Setup(run.plan, worker.place, os.getcwd(), self._images, run.digest, self._known, level)

    def _propose(self, worker: Worker, proposal: messages.Proposal) -> None:
        """Take the settings of the first worker for all, and say where another one's hardware differs."""
        is_first = self._chosen is None
        if self._chosen is None:
            self._chosen = self._run.decide(proposal.chosen)
            self._hardware = proposal.hardware
            self._clock.enter_context(self._run.timings.running())
        elif proposal.hardware != self._hardware:
            text = f"{worker.place.name} computes on {proposal.hardware}, others on {self._hardware}"
            if self._run.strict:
                raise UsageError(f"{text}, and `strict=True` allows no difference", "leave it out, or leave one out")
            self._notify(logging.WARNING, "workers differ in hardware: last digits of scores may depend on the worker")
            log.debug("%s", text)
        self._send(worker, messages.Begin(self._chosen, checks=is_first))
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
            case messages.Count() as request:
                if request.limit not in self._counts:
                    self._counts[request.limit] = found.count(request.limit)
                self._send(worker, messages.Counted(self._counts[request.limit]))
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

    def _explained(self, worker: Worker, error: BaseException) -> BaseException:
        """The error, which on another machine names it."""
        if self._engine.is_here or not isinstance(error, BeitError):
            return error
        return type(error)(f"{worker.place.name}: {error}", error.hint)

    def _send(self, worker: Worker, message: object) -> None:
        self._engine.send(worker.key, pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def _equip(self, worker: Worker, folder: str) -> None:
        """Send the checkpoint's files to the worker's machine."""
        from beitcli.workers.checkpoints import files_of

        if worker.is_equipped:
            raise BeitError(f"{worker.place.name}: the model cannot be written into `{folder}`", MAKE_ROOM)
        worker.is_equipped = True
        log.debug("the model is sent to %s", worker.place.name)
        self._engine.install(worker.key, partial(files_of, self._run.plan.checkpoint), folder)
        self._send(worker, self._setup(worker))

    def _notify(self, level: int, text: str, stage: str | None = None) -> None:
        """Log what a worker says, once however many say it."""
        if text not in self._notices:
            self._notices.add(text)
            log.log(level, "%s", text, extra={"stage": stage})

    # Work

    def _give(self, worker: Worker, found: Countable) -> None:
        """Give the worker what it has room for; have it drained where nothing else can come."""
        while worker.is_ready and not worker.is_draining and worker.room:
            if self._work.has_suspects_for(worker):
                if not worker.owed:
                    self._send(worker, self._work.chunk_of(worker, self._work.suspects_for(worker)))
                    self._drain(worker)
                    return
                break
            portion = self._work.next_for(worker, found)
            if portion is None:
                break
            worker.room -= 1
            self._send(worker, self._work.chunk_of(worker, portion))
        if worker.is_ready and not worker.is_draining and worker.room == AHEAD and worker.owed:
            self._drain(worker)

    def _drain(self, worker: Worker) -> None:
        self._send(worker, messages.Drain())
        worker.is_draining = True

    def _take(self, worker: Worker, done: messages.Done) -> None:
        self._run.timings.network += done.seconds[0]
        self._run.timings.decoding += done.seconds[1]
        self._run.timings.model += done.seconds[2]
        self._work.take(worker, done.outcomes)

    def _lose(self, worker: Worker, reason: str) -> None:
        """Let others do what a lost worker owed."""
        del self._workers[worker.key]
        self._engine.drop(worker.key)
        self._last_reason = f"{worker.place.name}: {reason}"
        if not worker.is_ready:
            self._failed_starts[worker.place] = self._failed_starts.get(worker.place, 0) + 1
        log.info("%s was lost (%s): others do its %d images", worker.place.name, reason, len(worker.owed))
        self._work.lose(worker, reason)
        self._tell_workers()
