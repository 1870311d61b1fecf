"""A worker: chunks of sources from a pipe -> the pipeline on its device -> outcomes into the pipe.

The predictor and the decoding processes live on from chunk to chunk, until the run has them drained.
"""

import json
import logging
import os
import queue
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pickle import HIGHEST_PROTOCOL, dumps, loads
from typing import TYPE_CHECKING, Any, NoReturn

from beitcli import signals
from beitcli.errors import BeitError
from beitcli.model.cpu import heap
from beitcli.records import Failure, Fetched, Found, Identity, Source, source_of
from beitcli.timings import Timings
from beitcli.workers.checkpoints import checkpoint_here
from beitcli.workers.messages import (
    PREFIX,
    Begin,
    Broken,
    Chunk,
    Count,
    Counted,
    Done,
    Drain,
    Drained,
    More,
    Notice,
    Outcome,
    Proposal,
    Setup,
    Unequipped,
    Unseen,
    WorkerPlan,
)
from beitcli.workers.settings import chosen_of, with_chosen
from beitcli.workers.versions import versions

if TYPE_CHECKING:
    from beitcli.pipeline import Predictor, Settings

_MOST_RECENT = 65_536
"""Digests kept as Python's numbers, before they are packed."""

_LAST_SECONDS = 1.0
"""Seconds that the pipeline has to clean up once the run is gone."""


def main(connection: Connection) -> NoReturn:
    """Serve the run at the other end of the connection, and end this process with it."""
    heap.tune()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # the run alone writes there
    for number in (signal.SIGINT, signal.SIGHUP):  # from a terminal: the run itself stops its workers
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    with suppress(signals.Stopped, BrokenPipeError, ConnectionResetError):
        _Worker(connection).serve()
    os._exit(0)  # at once: there is nothing to write, and the interpreter's own end takes long


def _stop(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    os.dup2(1, 2)  # what is interrupted may complain, as destructors do, and the run is not there to be told
    raise signals.Stopped(number)


class _Worker:
    """One run's worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def serve(self) -> None:
        """Send versions, settle with the run what to compute and how, then predict whatever it sends."""
        self._send_bytes(json.dumps({"node": socket.gethostname(), "versions": versions()}).encode())
        threading.Thread(target=self._receive, name="beit-inbox", daemon=True).start()
        try:
            self._predict(self._settled(self._set_up()))
        except BeitError as error:
            self._send(Broken(error))
        except Exception:
            self._send(Broken(RuntimeError(f"in a worker on {socket.gethostname()}:\n{traceback.format_exc()}")))

    def _set_up(self) -> Setup:
        """The setup, with the checkpoint as it is found here."""
        while True:
            setup: Setup = self._inbox.get()
            log = logging.getLogger("beitcli")
            log.handlers, log.propagate = [_Relay(self._send)], False
            log.setLevel(setup.level)
            missing = _missing(setup)
            if missing is not None:
                self._send(Unseen(missing))
                continue
            found = checkpoint_here(setup.plan.checkpoint, setup.digest)
            if isinstance(found, str):
                self._send(Unequipped(found))
                continue
            return replace(setup, plan=setup.plan.at(found, setup.place.device, setup.place.cores))

    def _settled(self, setup: Setup) -> "_Settled":
        from beitcli.model.runtime import hardware_name

        def count(limit: int) -> int:
            self._send(Count(limit))
            counted: Counted = self._inbox.get()
            return counted.count

        proposed = setup.plan.settings(count)
        chosen = chosen_of(proposed)
        self._send(Proposal(chosen, hardware_name(chosen.device)))
        begin: Begin = self._inbox.get()
        settings = with_chosen(proposed, begin.chosen)
        if not begin.checks:
            settings = replace(settings, checked=0)
        logging.getLogger(__name__).debug(
            "%s: %s on %s in %s, %d decoding processes",
            *(setup.place.name, settings.checkpoint.folder, settings.runtime.device, settings.runtime.dtype),
            settings.workers,
        )
        return _Settled(setup.plan, settings, _Filter(setup.known))

    def _predict(self, settled: "_Settled") -> None:
        from beitcli.pipeline import Predictor

        predictor = Predictor(settled.settings, settled.plan.load, _Computed)  # type: ignore[type-var]
        while True:
            first: Chunk | Drain = self._inbox.get()
            if isinstance(first, Chunk):
                self._predict_until_drained(first, predictor, settled.filter)

    def _predict_until_drained(self, first: Chunk, predictor: "Predictor[Any]", known: "_Filter") -> None:
        from beitcli.pipeline import predict

        timings = Timings()
        feed = _Feed(first, self._inbox.get, self._send, timings, known)
        spent = _Spent(timings)
        with closing(predict(feed, predictor, timings, known)) as batches:
            for records in batches:
                self._send(Done(tuple(feed.outcomes(records)), spent.since_last()))
        self._send(Done(tuple(feed.rest()), spent.since_last()))
        self._send(Drained())

    def _send(self, message: object) -> None:
        self._send_bytes(dumps(message, HIGHEST_PROTOCOL))

    def _send_bytes(self, data: bytes) -> None:
        with self._sending:
            self._connection.send_bytes(data)

    def _receive(self) -> None:
        """Put what comes into the inbox; end this process once the run is gone."""
        while True:
            try:
                self._inbox.put(loads(self._connection.recv_bytes()))  # noqa: S301  # from the run
            except (EOFError, OSError):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_LAST_SECONDS)
                os._exit(1)
            except Exception as error:  # what this version cannot read
                self._send(Broken(RuntimeError(f"a message that a worker cannot read: {error}")))


@dataclass(frozen=True, slots=True)
class _Settled:
    """Everything that is decided before the first image."""

    plan: WorkerPlan
    settings: "Settings"
    filter: "_Filter"


@dataclass(frozen=True, slots=True)
class _Computed:
    """The result of one image, in place of a record: the run has its source."""

    source: Source
    result: Any
    identity: Identity
    reused: bool


class _Filter:
    """The digests of which the run has results, called with one: an empty result stands for the one there.

    Eight bytes each: a run may have millions.
    """

    def __init__(self, prefixes: bytes) -> None:
        import numpy as np

        self._sorted = np.sort(np.frombuffer(prefixes, ">u8").astype(np.uint64))
        self._recent: set[int] = set()
        self._computed: set[bytes] = set()

    def add(self, digest: bytes) -> None:
        """Add that of a result which the run gets now."""
        import numpy as np

        self._recent.add(_prefix(digest))
        if len(self._recent) >= _MOST_RECENT:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.union1d(self._sorted, recent)
            self._recent.clear()

    def compute(self, digests: frozenset[bytes]) -> None:
        """Take these out: the run does not have their results after all."""
        self._computed |= digests

    def __call__(self, digest: bytes) -> tuple[()] | None:
        """An empty result for a digest in here, else None."""
        return () if self._has(_prefix(digest)) and digest not in self._computed else None

    def _has(self, prefix: int) -> bool:
        import numpy as np

        index = int(self._sorted.searchsorted(np.uint64(prefix)))
        return prefix in self._recent or (index < len(self._sorted) and int(self._sorted[index]) == prefix)


def _prefix(digest: bytes) -> int:
    return int.from_bytes(digest[:PREFIX], "big")


class _Feed:
    """Iterator over the sources of chunks as they come, until the run has the worker drained."""

    def __init__(
        self,
        first: Chunk,
        receive: Callable[[], Any],
        send: Callable[[object], None],
        timings: Timings,
        known: _Filter,
    ) -> None:
        self._receive = receive
        self._send = send
        self._timings = timings
        self._known = known
        self._waiting: deque[tuple[int, Found | Fetched]] = deque()
        self._fed: deque[tuple[int, Found | Fetched]] = deque()
        self._is_drained = False
        self._begun = False
        self._add(first)

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> Found | Fetched:
        if not self._waiting and not self._is_drained:
            start = time.monotonic()
            message: Chunk | Drain = self._receive()
            self._timings.decoding -= time.monotonic() - start  # nothing here was the reason
            if isinstance(message, Chunk):
                self._add(message)
            else:
                self._is_drained = True
        if not self._waiting:
            raise StopIteration
        if not self._begun:
            self._begun = True
            self._send(More())
        self._fed.append(self._waiting.popleft())
        return self._fed[-1][1]

    def outcomes(self, records: "list[Any]") -> Iterator[Outcome]:
        """The outcomes of these records, and of the unchanged URLs before them, which have none."""
        for record in records:
            while True:
                number, item = self._fed.popleft()
                if _source(item) == record.source:
                    break
                yield Outcome(number, None, Identity(), is_unchanged=True)
            if isinstance(record, Failure):
                yield Outcome(number, None, record.identity, failure=(record.code, record.message))
                continue
            yield Outcome(number, record.result, record.identity, record.reused)
            if record.identity.digest and not _is_elsewhere(record.result):
                self._known.add(record.identity.digest)

    def rest(self) -> Iterator[Outcome]:
        """The outcomes of the unchanged URLs behind the last record."""
        for number, _ in self._fed:
            yield Outcome(number, None, Identity(), is_unchanged=True)

    def _add(self, chunk: Chunk) -> None:
        self._begun = False
        self._known.compute(chunk.computed)
        self._waiting.extend(zip(chunk.numbers, chunk.items, strict=True))


class _Spent:
    """Seconds per stage since they were last asked for."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._before = (0.0, 0.0, 0.0)

    def since_last(self) -> tuple[float, float, float]:
        """Network, decoding, model."""
        now = (self._timings.network, self._timings.decoding, self._timings.model)
        before, self._before = self._before, now
        return (now[0] - before[0], now[1] - before[1], now[2] - before[2])


class _Relay(logging.Handler):
    """Log handler: send the messages to the run."""

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__()
        self._pass_on = send

    def emit(self, record: logging.LogRecord) -> None:
        self._pass_on(Notice(record.levelno, record.getMessage(), getattr(record, "stage", None)))


def _is_elsewhere(result: Any) -> bool:
    return isinstance(result, tuple) and not result


def _source(item: Found | Fetched) -> Source:
    return item.source if isinstance(item, Failure) else source_of(item)


def _missing(setup: Setup) -> str | None:
    """The working folder, or the first of the images, that is not there."""
    try:
        os.chdir(setup.folder)
    except OSError:
        return setup.folder
    return next((path for path in setup.images if not os.path.lexists(path)), None)
