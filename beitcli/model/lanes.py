"""Batches on their way through a model: several at once, each on its share of the cores or on its own stream."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import Generic, TypeVar

import torch
from torch import Tensor

from beitcli.model.runtime import Runtime

Answer = TypeVar("Answer")


class Lanes(Generic[Answer]):
    """Threads that each take one batch at a time; on a GPU one copies while the other computes.

    One matrix product on two cores waits for the slower of them, and what lies between two products is bound by memory:
    two batches on a core each wait for nobody, and are seldom at the same place.
    """

    def __init__(self, model: Callable[[Tensor], list[Answer]], runtime: Runtime) -> None:
        self._model = model
        self._device = runtime.device
        self._threads = runtime.threads
        self._own = local()
        self._pool = ThreadPoolExecutor(runtime.lanes, "lane", initializer=self._settle_in)

    def submit(self, pixels: Tensor) -> "Future[list[Answer]]":
        """What the model says of a batch, later; `pixels` must stay as they are until then."""
        return self._pool.submit(self._answers, pixels)

    def close(self) -> None:
        """Takes no more batches, and does not wait for those that are being computed."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _settle_in(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP keeps the number for each thread that starts work
        on_gpu = self._device.startswith("cuda")
        self._own.stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]

    def _answers(self, pixels: Tensor) -> list[Answer]:
        with torch.cuda.stream(self._own.stream):  # None: nothing to switch
            return self._model(pixels)
