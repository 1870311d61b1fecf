"""Loader and classifier -> ordered stream of predictions and failures."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from beitcli import signals
from beitcli.errors import ModelError
from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.loader import Decoded, Loader
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.classifier import Classifier
from beitcli.model.encoder import Encoder
from beitcli.model.features import Encoding
from beitcli.model.lanes import Lanes
from beitcli.model.memory import Heap
from beitcli.model.recipe import ProcessorRecipe, Recipe
from beitcli.model.runtime import Runtime
from beitcli.records import Embedding, Failure, Found, Identity, Prediction, Score, Source
from beitcli.timings import Timings

if TYPE_CHECKING:
    import numpy as np

Scores: TypeAlias = tuple[Score, ...]

_LONGEST_WAIT = 16
"""How many batches of records may wait for a batch to fill: what many broken pictures after a good one would hold."""


Answer = TypeVar("Answer")
Answered = TypeVar("Answered")


@dataclass(frozen=True, slots=True)
class Task(Generic[Answer, Answered]):
    """What is asked of every picture: `load` makes what answers a batch of pixels, `record` a record of one answer."""

    load: Callable[["Settings[Any, Any]"], Callable[[Tensor], list[Answer]]]
    record: Callable[[Source, Answer, Identity, bool], Answered]


def classification(top_k: int) -> Task[Scores, Prediction]:
    """Which labels fit each picture best."""

    def load(settings: "Settings[Any, Any]") -> Classifier:
        return Classifier(settings.checkpoint, settings.recipe, settings.runtime, top_k, settings.batch_size)

    return Task(load, Prediction)


def encoding(kind: Encoding) -> "Task[np.ndarray[Any, Any], Embedding]":
    """The features of each picture. Raises ModelError, when it loads, for what is no BEiT."""

    def load(settings: "Settings[Any, Any]") -> Encoder:
        if not isinstance(settings.recipe, Recipe):
            raise ModelError(f"`{settings.checkpoint.name}` is no BEiT", "features are those of a BEiT")
        return Encoder(settings.checkpoint, settings.recipe, settings.runtime, kind, settings.batch_size)

    return Task(load, Embedding)


@dataclass(frozen=True, slots=True)
class Settings(Generic[Answer, Answered]):
    """How a run goes: what it answers with, and what it may take. `padded` gives every model batch the same shape."""

    task: Task[Answer, Answered]
    checkpoint: Checkpoint
    recipe: Recipe | ProcessorRecipe
    runtime: Runtime
    batch_size: int
    padded: bool
    workers: int
    decoding: Decoding
    fetching: FetchLimits


ClassificationSettings: TypeAlias = Settings[Scores, Prediction]


def predict(
    found: Iterable[Found],
    settings: Settings[Answer, Answered],
    timings: Timings,
    known: Callable[[bytes], Answer | None] = lambda _: None,
) -> Generator[list[Answered | Failure], None, None]:
    """What was found, answered, in order and in lists, each as soon as it is complete.

    Workers start, and decode ahead, before the model is loaded. With `settings.padded`, what a picture gets depends on
    no other picture: model batches are cut from the pictures that need an answer, and padded to one shape.

    Pictures with a digest need none if an identical one is on its way, or if `known` has its answer.

    Raises ModelError, DeviceError.
    """
    fetched = fetch(found, settings.fetching, timings.add_network)
    with (
        Loader(fetched, settings.recipe, settings.decoding, settings.workers) as loader,
        closing(Lanes(settings.task.load(settings), settings.runtime)) as lanes,
    ):
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


class _Batch(Generic[Answer, Answered]):
    """Pictures that go into the model together, and what needs no model between them, in input order."""

    def __init__(self, pixels: Tensor) -> None:
        self.rows: list[_Place[Answer] | Answered | Failure] = []
        self.pixels = pixels
        self.filled = 0
        self.digests: list[bytes] = []
        self.answers: Future[list[Answer]] | None = None

    def is_complete(self) -> bool:
        """Full, without any picture to wait for, or holding back too much."""
        size = len(self.pixels)
        return self.filled in (0, size) or len(self.rows) >= size * _LONGEST_WAIT

    def is_answered(self) -> bool:
        return self.answers is None or self.answers.done()


@dataclass(frozen=True, slots=True)
class _Place(Generic[Answer]):
    """A picture, and which of a batch's pixels are its; `shared` with an identical one before it."""

    source: Source
    identity: Identity
    batch: "_Batch[Answer, Any]"
    slot: int
    shared: bool

    def answer(self) -> Answer:
        assert self.batch.answers is not None  # noqa: S101  # a batch with a place in it was sent into the model
        return self.batch.answers.result()[self.slot]


class _Batches(Generic[Answer, Answered]):
    """The batch that is being filled, and those before it that the model is at, in input order."""

    def __init__(
        self,
        lanes: Lanes[Answer],
        settings: Settings[Answer, Answered],
        timings: Timings,
        known: Callable[[bytes], Answer | None],
    ) -> None:
        self._lanes = lanes
        self._task = settings.task
        self._padded = settings.padded
        self._timings = timings
        self._known = known
        lanes_in_use = settings.runtime.lanes
        self._most = lanes_in_use if lanes_in_use > 1 else 0  # and one more: a lane never waits for its next batch
        dtype = getattr(torch, settings.recipe.dtype)
        pin = settings.runtime.device.startswith("cuda")
        shape = (settings.batch_size, *settings.recipe.shape)
        self._free = [torch.zeros(shape, dtype=dtype, pin_memory=pin) for _ in range(self._most + 2)]
        self._places: dict[bytes, _Place[Answer]] = {}
        self._ahead: deque[_Batch[Answer, Answered]] = deque()
        self._busy = 0
        self._filling: _Batch[Answer, Answered] = _Batch(self._free.pop())

    def add(self, item: Decoded | Failure) -> None:
        """Puts a picture or a failure in its place; a batch that is complete goes into the model."""
        self._filling.rows.append(item if isinstance(item, Failure) else self._placed(item))
        if self._filling.is_complete():
            self._send()

    def answered(self, wait: bool) -> Iterator[list[Answered | Failure]]:
        """The records of each batch that has its answers; with `wait`, of all there are."""
        if wait and self._filling.rows:
            self._send()
        while self._ahead and (wait or self._busy > self._most or self._ahead[0].is_answered()):
            batch = self._ahead.popleft()
            if batch.answers is not None:
                self._wait_for(batch.answers)
                self._busy -= 1
                self._free.append(batch.pixels)
            yield [self._recorded(row) for row in batch.rows]
            for digest in batch.digests:  # from here on `known` knows them
                del self._places[digest]

    def _recorded(self, row: "_Place[Answer] | Answered | Failure") -> Answered | Failure:
        if isinstance(row, _Place):
            return self._task.record(row.source, row.answer(), row.identity, row.shared)
        return row

    def _placed(self, item: Decoded) -> "_Place[Answer] | Answered":
        digest, batch = item.identity.digest, self._filling
        answer = self._known(digest) if digest else None
        if answer is not None:
            return self._task.record(item.source, answer, item.identity, True)
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
        batch: _Batch[Answer, Answered] = self._filling
        self._ahead.append(batch)
        if batch.filled:
            batch.answers = self._lanes.submit(batch.pixels if self._padded else batch.pixels[: batch.filled])
            self._busy += 1
        self._filling = _Batch(self._free.pop() if batch.filled else batch.pixels)

    def _wait_for(self, answers: "Future[list[Answer]]") -> None:
        start = time.monotonic()
        with signals.held(signals.GRACE):
            answers.result()
        self._timings.model += time.monotonic() - start
