"""Sources -> ordered stream of decoded items, through a torch DataLoader that survives its workers."""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from glob import glob
from itertools import chain, islice
from math import prod
from multiprocessing import popen_fork
from types import FrameType, TracebackType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from beitcli.inputs.decode import Decoding, Outcome, Preprocess, outcome
from beitcli.inputs.quarantine import decode_alone
from beitcli.inputs.worker import (
    START_METHOD,
    folder_errors,
    folder_for_sockets,
    held_signals,
    init_worker,
    share,
    shared_memory,
)
from beitcli.records import Failure, Fetched, Identity, Source, source_of

log = logging.getLogger(__name__)

Item: TypeAlias = Source | Fetched | Failure

LONGEST_LIST = 8
"""Most items a worker gets at once: enough to make hand-overs cheap, few enough for the first results to come soon."""

PREFETCH = 2
"""Lists prefetched per worker."""

MOST_IN_FLIGHT = 256_000_000
"""Bytes of fetched images in flight at once, and one image more; beyond that the next list is empty."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image's pixels, of the shape and dtype that the preprocessing declares."""

    source: Source
    pixels: Tensor
    identity: Identity


class _WorkerDied(Exception):  # noqa: N818  # an event, not an error: the run goes on
    """A worker has died, perhaps with the queue's lock or within a message."""


class _Lists:
    """Batch sampler: lists of items, the first ones short. The DataLoader takes one whenever a worker is free.

    Lists taken and not yet returned are in flight. An iterator, not a generator: it survives an exception in one call.
    """

    def __init__(self, items: Iterator[Item], longest: int, workers: int) -> None:
        self.in_flight: deque[list[Item]] = deque()
        self.taking = False
        self._items = items
        self._longest = longest
        self._workers = workers
        self._taken = 0

    def __iter__(self) -> "_Lists":
        return self

    def __next__(self) -> list[Item]:
        self.taking = True
        try:
            heavy = sum(map(_size, chain.from_iterable(self.in_flight)))
            batch = self._list(MOST_IN_FLIGHT - heavy)
            if not batch and heavy < MOST_IN_FLIGHT:
                raise StopIteration
            self._taken += bool(batch)
            self.in_flight.append(batch)
        finally:
            self.taking = False
        return batch

    def _list(self, room: int) -> list[Item]:
        """The next items, up to so many bytes; empty at the end."""
        batch: list[Item] = []
        for item in islice(self._items, min(self._longest, 1 + self._taken // self._workers) if room > 0 else 0):
            batch.append(item)
            room -= _size(item)
            if room <= 0:
                break
        return batch


def _size(item: Item) -> int:
    return len(item.data) if isinstance(item, Fetched) else 0


class Loader:
    """Decode items in worker processes and yield them in order, as `Decoded` or `Failure`.

    A context manager, best entered before any thread or model exists: workers are forked on entering and killed on
    leaving. `workers` 0 decodes in this process, unprotected from a decoder that crashes or never ends. Pixels come
    through shared memory, or where it is too small for them through pipes.
    Raises OutputError where there is no room for temporary files.
    """

    def __init__(self, items: Iterable[Item], preprocess: Preprocess, decoding: Decoding, workers: int) -> None:
        self._preprocess = preprocess
        self._decoding = decoding if workers else replace(decoding, seconds=0)
        self._workers = workers
        self._lists = _Lists(iter(items), _longest_list(preprocess, workers), max(1, workers))
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._waiting = False

    def __enter__(self) -> "Loader":
        self._handles_signals = bool(self._workers) and threading.current_thread() is threading.main_thread()
        if self._workers and not self._handles_signals:
            log.warning("in a thread, the death of a decoding process is noticed after seconds, not at once")
        self._old_handler = signal.getsignal(signal.SIGCHLD)
        self._folder = _temporary_folder() if self._workers else None
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        if self._folder:
            self._folder.cleanup()
        if self._handles_signals:
            signal.signal(signal.SIGCHLD, self._old_handler)

    def __iter__(self) -> Iterator[Decoded | Failure]:
        while True:
            try:
                results, pixels = self._next()
            except StopIteration:
                return
            except _WorkerDied:
                self._stop()
                yield from self._recovered()
                self._start()
                continue
            self._lists.in_flight.popleft()
            rows = iter(torch.as_tensor(pixels))
            for result in results:
                yield result if isinstance(result, Failure) else Decoded(result[0], next(rows), result[1])

    def _next(self) -> "_List":
        """The next finished list. Raises _WorkerDied as soon as a worker has died."""
        if self._processes and not self._lists.in_flight:  # torch would now shut its workers down
            raise StopIteration
        self._waiting = True
        try:
            if self._has_lost_a_worker():
                raise _WorkerDied
            result: _List = next(self._iterator)
            return result
        except (RuntimeError, OSError, EOFError) as error:  # raised by a DataLoader, or a queue without its other end
            if self._is_losing_a_worker():
                raise _WorkerDied from error
            raise
        finally:
            self._waiting = False

    def _start(self) -> None:
        context = multiprocessing.get_context(START_METHOD) if self._workers else None
        images = _Images(
            self._preprocess, self._decoding, context.Lock() if context else None, self._fits_into_shared_memory()
        )
        with held_signals(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # more workers than cores, as the user requested
            loader: DataLoader[Any] = DataLoader(
                images,
                batch_sampler=self._lists,  # the items themselves, not indices: their number need not be known
                num_workers=self._workers,
                collate_fn=_identity,
                worker_init_fn=partial(_init_worker, self._folder.name) if self._folder else None,
                multiprocessing_context=context,
                prefetch_factor=PREFETCH if self._workers else None,
            )
            iterator: Any = iter(loader)
        if self._workers:  # a worker that is killed while it checks their shared event leaves it locked for ever
            self._theirs, iterator._workers_done_event = iterator._workers_done_event, threading.Event()
        self._iterator = iterator
        self._processes = list(iterator._workers) if self._workers else []
        # torch's own handler raises anywhere and prints to file descriptor 2
        if self._handles_signals:
            signal.signal(signal.SIGCHLD, self._on_child_exit)

    def _fits_into_shared_memory(self) -> bool:
        """True unless all that is in flight needs more; never asked in a thread, where half a message would hang it."""
        return not self._handles_signals or _bytes_in_flight(self._preprocess, self._workers) <= shared_memory()

    def _stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
            for segment in glob(f"/dev/shm/torch_{process.pid}_*"):  # noqa: S108  # created, and not yet unlinked
                os.unlink(segment)
        self._processes = []

    def _on_child_exit(self, _signal: int, frame: FrameType | None) -> None:
        if self._waiting and not self._lists.taking and not _must_end(frame) and self._has_lost_a_worker():
            raise _WorkerDied

    def _has_lost_a_worker(self) -> bool:
        return bool(self._lists.in_flight) and not all(process.is_alive() for process in self._processes)

    def _is_losing_a_worker(self) -> bool:
        """True if a worker has died or is dying: the kernel closes its sockets before it reports the death."""
        until = time.monotonic() + 1
        while not self._has_lost_a_worker():
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return True

    def _recovered(self) -> Iterator[Decoded | Failure]:
        """Items in flight when a worker died, decoded one by one in isolation."""
        items = list(chain.from_iterable(self._lists.in_flight))
        self._lists.in_flight.clear()
        images = [item for item in items if not isinstance(item, Failure)]
        with closing(decode_alone(images, self._preprocess, self._decoding)) as outcomes:
            for item in items:
                if isinstance(item, Failure):
                    yield item
                    continue
                result = next(outcomes)
                if isinstance(result, Failure):
                    yield result
                else:
                    pixels, identity = result
                    yield Decoded(source_of(item), torch.from_numpy(pixels), identity)


_List: TypeAlias = tuple[list[tuple[Source, Identity] | Failure], Tensor | np.ndarray]
"""A worker's result for a list: its items, and the stacked pixels of those that were decoded.

A tensor is sent by shared memory, an array through the pipe.
"""


@dataclass(frozen=True)
class _Images(Dataset[_List]):
    """Dataset run by the workers. `large_lock` is shared by them; without it the items are decoded in this process.

    With `shares_memory` the pixels are given back there.
    """

    preprocess: Preprocess
    decoding: Decoding
    large_lock: AbstractContextManager[object] | None
    shares_memory: bool

    def __getitems__(self, items: Sequence[Item]) -> _List:
        results: list[tuple[Source, Identity] | Failure] = []
        arrays: list[np.ndarray] = []
        for item in items:
            if isinstance(item, Failure):
                results.append(item)
                continue
            result = self._outcome(item)
            if isinstance(result, Failure):
                results.append(result)
            else:
                pixels, identity = result
                results.append((source_of(item), identity))
                arrays.append(pixels)
        if not arrays:
            return results, np.empty((0, *self.preprocess.shape), self.preprocess.dtype)
        pixels = np.stack(arrays)
        if not (self.large_lock and self.shares_memory):
            return results, pixels
        batch = torch.from_numpy(pixels)
        share(batch)
        return results, batch

    def _outcome(self, item: Source | Fetched) -> Outcome:
        if self.large_lock:
            return outcome(item, self.preprocess, self.decoding, self.large_lock)
        with _no_output():
            return outcome(item, self.preprocess, self.decoding, nullcontext())


def _must_end(frame: FrameType | None) -> bool:
    """True within what no exception may interrupt; the death is noticed by the next look at the workers.

    multiprocessing's own look at a process would lose the status of one that it reaped, and what is raised while an
    object is deleted is printed and lost.
    """
    while frame is not None:
        if frame.f_code.co_filename == popen_fork.__file__ or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _identity(batch: Any) -> Any:
    return batch


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder whose files may be sockets."""
    with folder_errors():
        return tempfile.TemporaryDirectory(prefix="beit-", dir=folder_for_sockets(), ignore_cleanup_errors=True)


def _init_worker(folder: str, _worker: int) -> None:
    init_worker()
    tempfile.tempdir = folder  # for the socket that tensors are sent by, which a killed worker leaves behind


def _longest_list(preprocess: Preprocess, workers: int) -> int:
    """The length at which all lists in flight fit in the shared memory."""
    if not workers:
        return LONGEST_LIST
    return max(1, min(LONGEST_LIST, shared_memory() // _bytes_in_flight(preprocess, workers)))


def _bytes_in_flight(preprocess: Preprocess, workers: int) -> int:
    """Bytes of the pixels in flight with lists of one image."""
    return prod(preprocess.shape) * np.dtype(preprocess.dtype).itemsize * workers * (PREFETCH + 1)


@contextmanager
def _no_output() -> Iterator[None]:
    """Redirect file descriptor 2 to nowhere, for decoders written in C. A thread leaves it as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
