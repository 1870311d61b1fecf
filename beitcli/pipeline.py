"""Loader and classifier -> ordered stream of predictions and failures."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch

from beitcli import signals
from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.loader import Decoded, Loader
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.classifier import Classifier
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

    Pictures with a digest need none if an identical one is in the same batch, or if `known` has scores for it.

    Raises ModelError, DeviceError.
    """
    fetched = fetch(found, settings.fetching, timings.add_network)
    with Loader(fetched, settings.recipe, settings.decoding, settings.workers) as loader:
        classifier = Classifier(
            settings.checkpoint, settings.recipe, settings.runtime, settings.top_k, settings.batch_size
        )
        heap = Heap()
        timings.restart()
        batch = _Batch(classifier, settings, timings, known)
        for item in _timed(loader, timings):
            batch.add(item)
            if batch.is_complete():
                yield batch.answered()
                heap.tidy()
        if batch.rows:
            yield batch.answered()


def _timed(items: Iterable[Decoded | Failure], timings: Timings) -> Iterator[Decoded | Failure]:
    waiting = iter(items)
    while True:
        start = time.monotonic()
        item = next(waiting, None)
        timings.decoding += time.monotonic() - start
        if item is None:
            return
        yield item


@dataclass(frozen=True, slots=True)
class _Place:
    """A picture in a batch, and which of the batch's pixels are its; `shared` with an identical one before it."""

    source: Source
    identity: Identity
    slot: int
    shared: bool


class _Batch:
    """Pictures on their way into the model, and what needs no model between them, in input order."""

    def __init__(
        self,
        classifier: Classifier,
        settings: Settings,
        timings: Timings,
        known: Callable[[bytes], Scores | None],
    ) -> None:
        self.rows: list[_Place | Record] = []
        self._slots: dict[bytes, int] = {}
        self._known = known
        self._classifier = classifier
        self._padded = settings.padded
        self._timings = timings
        dtype = getattr(torch, settings.recipe.dtype)
        pin = settings.runtime.device.startswith("cuda")
        self._pixels = torch.zeros((settings.batch_size, *settings.recipe.shape), dtype=dtype, pin_memory=pin)
        self._filled = 0

    def add(self, item: Decoded | Failure) -> None:
        if isinstance(item, Failure):
            self.rows.append(item)
            return
        digest = item.identity.digest
        scores = self._known(digest) if digest else None
        if scores is not None:
            self.rows.append(Prediction(item.source, scores, item.identity, reused=True))
            return
        slot = self._slots.get(digest) if digest else None
        self.rows.append(_Place(item.source, item.identity, self._filled if slot is None else slot, slot is not None))
        if slot is None:
            self._pixels[self._filled].copy_(item.pixels)
            if digest:
                self._slots[digest] = self._filled
            self._filled += 1

    def is_complete(self) -> bool:
        """Full, without any picture to wait for, or holding back too much."""
        size = len(self._pixels)
        return self._filled in (0, size) or len(self.rows) >= size * _LONGEST_WAIT

    def answered(self) -> list[Record]:
        """The records, each picture with its prediction; the batch is empty afterwards."""
        start = time.monotonic()
        pixels = self._pixels if self._padded else self._pixels[: self._filled]
        with signals.held(signals.GRACE):
            scores = self._classifier(pixels) if self._filled else []
        self._timings.model += time.monotonic() - start
        records = [
            Prediction(row.source, scores[row.slot], row.identity, row.shared) if isinstance(row, _Place) else row
            for row in self.rows
        ]
        self.rows, self._filled = [], 0
        self._slots.clear()
        return records
