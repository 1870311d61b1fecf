"""Loader and classifier -> ordered stream of predictions and failures."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from beitcli import signals
from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.loader import Decoded, Loader
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.classifier import Classifier
from beitcli.model.lanes import Lanes
from beitcli.model.memory import Heap
from beitcli.model.recipe import ProcessorRecipe, Recipe
from beitcli.model.runtime import Runtime
from beitcli.records import Failure, Found, Identity, Prediction, Record, Score, Source
from beitcli.timings import Timings

_LONGEST_WAIT = 16
"""How many batches of records may wait for a batch to fill: what many broken pictures after a good one would hold."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes: what it answers with, and what it may take. `padded` gives every model batch the same shape."""

    checkpoint: Checkpoint
    recipe: Recipe | ProcessorRecipe
    runtime: Runtime
    top_k: int
    batch_size: int
    padded: bool
    workers: int
    decoding: Decoding
    fetching: FetchLimits


Scores: TypeAlias = tuple[Score, ...]


def predict(
    found: Iterable[Found],
    settings: Settings,
    timings: Timings,
    known: Callable[[bytes], Scores | None] = lambda _: None,
) -> Generator[list[Record], None, None]:
    """What was found, answered, in order and in lists, each as soon as it is complete.

    Workers start, and decode ahead, before the model is loaded. With `settings.padded`, what a picture gets depends on
    no other picture: model batches are cut from the pictures that need an answer, and padded to one shape.

    Pictures with a digest need none if an identical one is on its way, or if `known` has scores for it.

    Raises ModelError, DeviceError.
    """
    fetched = fetch(found, settings.fetching, timings.add_network)
    with Loader(fetched, settings.recipe, settings.decoding, settings.workers) as loader:
        classifier = Classifier(
            settings.checkpoint, settings.recipe, settings.runtime, settings.top_k, settings.batch_size
        )
        with closing(Lanes(classifier, settings.runtime)) as lanes:
            heap = Heap()
            timings.restart()
            batches = _Batches(lanes, settings, timings, known)
            for item in _timed(loader, timings):
                batches.add(item)
                for records in batches.answered(wait=False):
                    yield records
                    heap.tidy()
            yield from batches.answered(wait=True)


def _timed(items: Iterable[Decoded | Failure], timings: Timings) -> Iterator[Decoded | Failure]:
    waiting = iter(items)
    while True:
        start = time.monotonic()
        item = next(waiting, None)
        timings.decoding += time.monotonic() - start
        if item is None:
            return
        yield item


class _Batch:
    """Pictures that go into the model together, and what needs no model between them, in input order."""

    def __init__(self, pixels: Tensor) -> None:
        self.rows: list[_Place | Record] = []
        self.pixels = pixels
        self.filled = 0
        self.digests: list[bytes] = []
        self.answers: Future[list[Scores]] | None = None

    def is_complete(self) -> bool:
        """Full, without any picture to wait for, or holding back too much."""
        size = len(self.pixels)
        return self.filled in (0, size) or len(self.rows) >= size * _LONGEST_WAIT

    def is_answered(self) -> bool:
        return self.answers is None or self.answers.done()


@dataclass(frozen=True, slots=True)
class _Place:
    """A picture, and which of a batch's pixels are its; `shared` with an identical one before it."""

    source: Source
    identity: Identity
    batch: _Batch
    slot: int
    shared: bool

    def prediction(self) -> Prediction:
        assert self.batch.answers is not None  # noqa: S101  # a batch with a place in it was sent into the model
        return Prediction(self.source, self.batch.answers.result()[self.slot], self.identity, self.shared)


class _Batches:
    """The batch that is being filled, and those before it that the model is at, in input order."""

    def __init__(
        self,
        lanes: Lanes,
        settings: Settings,
        timings: Timings,
        known: Callable[[bytes], Scores | None],
    ) -> None:
        self._lanes = lanes
        self._padded = settings.padded
        self._timings = timings
        self._known = known
        lanes_in_use = settings.runtime.lanes
        self._most = lanes_in_use if lanes_in_use > 1 else 0  # and one more: a lane never waits for its next batch
        dtype = getattr(torch, settings.recipe.dtype)
        pin = settings.runtime.device.startswith("cuda")
        shape = (settings.batch_size, *settings.recipe.shape)
        self._free = [torch.zeros(shape, dtype=dtype, pin_memory=pin) for _ in range(self._most + 2)]
        self._places: dict[bytes, _Place] = {}
        self._ahead: deque[_Batch] = deque()
        self._busy = 0
        self._filling = _Batch(self._free.pop())

    def add(self, item: Decoded | Failure) -> None:
        """Puts a picture or a failure in its place; a batch that is complete goes into the model."""
        self._filling.rows.append(item if isinstance(item, Failure) else self._placed(item))
        if self._filling.is_complete():
            self._send()

    def answered(self, wait: bool) -> Iterator[list[Record]]:
        """The records of each batch that has its answers; with `wait`, of all there are."""
        if wait and self._filling.rows:
            self._send()
        while self._ahead and (wait or self._busy > self._most or self._ahead[0].is_answered()):
            batch = self._ahead.popleft()
            if batch.answers is not None:
                self._wait_for(batch.answers)
                self._busy -= 1
                self._free.append(batch.pixels)
            yield [row.prediction() if isinstance(row, _Place) else row for row in batch.rows]
            for digest in batch.digests:  # from here on `known` knows them
                del self._places[digest]

    def _placed(self, item: Decoded) -> _Place | Prediction:
        digest, batch = item.identity.digest, self._filling
        scores = self._known(digest) if digest else None
        if scores is not None:
            return Prediction(item.source, scores, item.identity, reused=True)
        same = self._places.get(digest) if digest else None
        if same is not None:
            return _Place(item.source, item.identity, same.batch, same.slot, shared=True)
        place = _Place(item.source, item.identity, batch, batch.filled, shared=False)
        batch.pixels[batch.filled].copy_(item.pixels)
        batch.filled += 1
        if digest:
            self._places[digest] = place
            batch.digests.append(digest)
        return place

    def _send(self) -> None:
        batch = self._filling
        self._ahead.append(batch)
        if batch.filled:
            batch.answers = self._lanes.submit(batch.pixels if self._padded else batch.pixels[: batch.filled])
            self._busy += 1
        self._filling = _Batch(self._free.pop() if batch.filled else batch.pixels)

    def _wait_for(self, answers: "Future[list[Scores]]") -> None:
        start = time.monotonic()
        with signals.held(signals.GRACE):
            answers.result()
        self._timings.model += time.monotonic() - start
