"""Loader and classifier -> ordered stream of predictions and failures."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Generic, TypeAlias

import torch
from torch import Tensor

from beitcli import signals
from beitcli.errors import ModelError
from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits, fetch
from beitcli.inputs.loader import Decoded, Loader
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.heap import Heap
from beitcli.model.encoder import Encoder
from beitcli.model.features import Encoding
from beitcli.model.inference_pool import InferencePool
from beitcli.model.preprocessing import Preprocessing, ProcessorPreprocessing
from beitcli.model.runtime import Runtime
from beitcli.model.self_check import SelfCheck
from beitcli.records import Failure, Fetched, Found, Identity, ResultRecord, Source
from beitcli.timings import Timings

_LONGEST_WAIT = 16
"""Batches of records that may wait for a batch to fill, as when many broken images follow a good one."""

_MOST_UNCHECKED = 32
"""Batches of results that may wait for the check of int8; with more, the run waits for it."""

Model: TypeAlias = Callable[[Tensor], list[Any]]
"""A loaded model: pixels of a batch -> the result of each image, scores or features."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run: model and resources. `padded` gives every model batch the same shape.

    The first `checked` images are computed in the reference dtype, too.
    """

    checkpoint: Checkpoint
    preprocessing: Preprocessing | ProcessorPreprocessing
    runtime: Runtime
    batch_size: int
    padded: bool
    workers: int
    decoding: Decoding
    fetching: FetchLimits
    checked: int = 0


def load_classifier(settings: Settings, top_k: int) -> PixelClassifier:
    """The model that gives the best `top_k` labels of each image, 0 for all. Raises ModelError, DeviceError."""
    return PixelClassifier(settings.checkpoint, settings.preprocessing, settings.runtime, top_k, settings.batch_size)


def load_encoder(settings: Settings, kind: Encoding) -> Encoder:
    """The model that gives the features of each image. Raises DeviceError, and ModelError for no BEiT."""
    if not isinstance(settings.preprocessing, Preprocessing):
        raise ModelError(f"`{settings.checkpoint.name}` is no BEiT", "features need a BEiT")
    return Encoder(settings.checkpoint, settings.preprocessing, settings.runtime, kind, settings.batch_size)


class Predictor(Generic[ResultRecord]):
    """Settings of a run, and the model that the first thread to need it loads; later runs use it again.

    `load` loads it, and `record` makes the record of one of its results.

    Any thread may call it. A run with decoding processes is best started before any thread or model exists.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings], Model],
        record: Callable[[Source, Any, Identity, bool], ResultRecord],
    ) -> None:
        self.settings = settings
        self.record = record
        self._load = load
        self._loading = Lock()
        self._model: Model | None = None
        self.check = SelfCheck(self._reference, settings.checked, settings.runtime.threads)

    def _reference(self) -> Model:
        return self._load(replace(self.settings, runtime=self.settings.runtime.reference))

    def __call__(self, pixels: Tensor) -> list[Any]:
        """The results for a batch of pixels, of the preprocessing's shape and dtype behind a dimension of images.

        Raises ModelError where the weights do not fit, DeviceError where the device fails.
        """
        return self.model()(pixels)

    def model(self) -> Model:
        """The loaded model; that of the check loads beside it. Raises ModelError, DeviceError."""
        with self._loading:
            if self._model is None:
                self.check.start()
                self._model = self._load(self.settings)
            return self._model


def predict(
    found: Iterable[Found | Fetched],
    predictor: Predictor[ResultRecord],
    timings: Timings,
    known: Callable[[bytes], Any | None] = lambda _: None,
) -> Generator[list[ResultRecord | Failure], None, None]:
    """Yield the records of what was found, in order and in lists, each as soon as it is complete.

    Workers start, and decode ahead, before the model is loaded. With `padded` settings, the result of an image depends
    on no other image: model batches are cut from the images that need the model, and padded to one shape.

    An image with a digest skips the model if an identical one is in flight, or if `known` has its result.

    In int8 the first records come when the predictor's check is done.

    Raises ModelError, DeviceError.
    """
    settings = predictor.settings
    fetched = fetch(found, settings.fetching, timings.add_network)
    with (
        Loader(fetched, settings.preprocessing, settings.decoding, settings.workers) as loader,
        closing(InferencePool(predictor.model(), settings.runtime)) as pool,
        timings.running(),
    ):
        heap = Heap()
        batches = _Batches(pool, predictor, timings, known)
        for item in _timed(loader, timings):
            batches.add(item)
            for records in batches.completed(wait=False):
                yield records
                heap.tidy()
        yield from batches.completed(wait=True)


def _timed(items: Iterable[Decoded | Failure], timings: Timings) -> Iterator[Decoded | Failure]:
    iterator = iter(items)
    while True:
        start = time.monotonic()
        item = next(iterator, None)
        timings.decoding += time.monotonic() - start
        if item is None:
            return
        yield item


class _Batch(Generic[ResultRecord]):
    """Images that go into the model together, and the records between them that need no model, in input order."""

    def __init__(self, pixels: Tensor) -> None:
        self.rows: list[_Place | ResultRecord | Failure] = []
        self.pixels = pixels
        self.filled = 0
        self.digests: list[bytes] = []
        self.results: Future[list[Any]] | None = None

    def is_complete(self) -> bool:
        """True if full, without any image for the model, or delaying too many records."""
        size = len(self.pixels)
        return self.filled in (0, size) or len(self.rows) >= size * _LONGEST_WAIT

    def is_done(self) -> bool:
        return self.results is None or self.results.done()


@dataclass(frozen=True, slots=True)
class _Place:
    """An image, and its slot in a batch; `shared` with an identical image before it."""

    source: Source
    identity: Identity
    batch: "_Batch[Any]"
    slot: int
    shared: bool

    def result(self) -> Any:
        assert self.batch.results is not None  # noqa: S101  # a batch with a place in it was sent into the model
        return self.batch.results.result()[self.slot]


class _Batches(Generic[ResultRecord]):
    """The batch that is being filled, and those in flight before it, in input order."""

    def __init__(
        self,
        pool: InferencePool,
        predictor: Predictor[ResultRecord],
        timings: Timings,
        known: Callable[[bytes], Any | None],
    ) -> None:
        self._pool = pool
        settings = predictor.settings
        self._record = predictor.record
        self._check = predictor.check
        self._padded = settings.padded
        self._timings = timings
        self._known = known
        concurrency = settings.runtime.concurrency
        self._max_queued = concurrency if concurrency > 1 else 0  # and one more: no thread waits for its next batch
        dtype = getattr(torch, settings.preprocessing.dtype)
        pin = settings.runtime.device.startswith("cuda")
        shape = (settings.batch_size, *settings.preprocessing.shape)
        self._free = [torch.zeros(shape, dtype=dtype, pin_memory=pin) for _ in range(self._max_queued + 2)]
        self._places: dict[bytes, _Place] = {}
        self._pending: deque[_Batch[ResultRecord]] = deque()
        self._finished: deque[_Batch[ResultRecord]] = deque()
        self._in_flight = 0
        self._filling: _Batch[ResultRecord] = _Batch(self._free.pop())

    def add(self, item: Decoded | Failure) -> None:
        """Add an image or a failure; send the batch to the model once it is complete."""
        self._filling.rows.append(item if isinstance(item, Failure) else self._place(item))
        if self._filling.is_complete():
            self._send()

    def completed(self, wait: bool) -> Iterator[list[ResultRecord | Failure]]:
        """Yield the records of each batch that has its results; with `wait`, of all batches."""
        if wait and self._filling.rows:
            self._send()
        while self._pending and (wait or self._in_flight > self._max_queued or self._pending[0].is_done()):
            batch = self._pending.popleft()
            if batch.results is not None:
                self._wait_for(batch.results)
                self._check.compare(batch.pixels[: batch.filled], batch.results.result())
                self._in_flight -= 1
                self._free.append(batch.pixels)
            self._finished.append(batch)
            if self._check.is_done(wait=len(self._finished) > _MOST_UNCHECKED):
                yield from self._records()
        if wait and self._check.is_done(wait=True):
            yield from self._records()

    def _records(self) -> Iterator[list[ResultRecord | Failure]]:
        """The records of the finished batches, once."""
        while self._finished:
            batch = self._finished.popleft()
            yield [self._to_record(row) for row in batch.rows]
            for digest in batch.digests:  # from here on `known` knows them
                del self._places[digest]

    def _to_record(self, row: "_Place | ResultRecord | Failure") -> ResultRecord | Failure:
        if isinstance(row, _Place):
            return self._record(row.source, row.result(), row.identity, row.shared)
        return row

    def _place(self, item: Decoded) -> "_Place | ResultRecord":
        digest, batch = item.identity.digest, self._filling
        result = self._known(digest) if digest else None
        if result is not None:
            return self._record(item.source, result, item.identity, True)
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
        self._pending.append(batch)
        if batch.filled:
            batch.results = self._pool.submit(batch.pixels if self._padded else batch.pixels[: batch.filled])
            self._in_flight += 1
        self._filling = _Batch(self._free.pop() if batch.filled else batch.pixels)

    def _wait_for(self, results: "Future[list[Any]]") -> None:
        start = time.monotonic()
        with signals.held(signals.GRACE):
            results.result()
        self._timings.model += time.monotonic() - start
