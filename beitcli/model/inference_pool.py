"""Concurrent inference: several batches at once, each on its share of the cores or on its own CUDA stream."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import Any

import torch
from torch import Tensor

from beitcli.model.runtime import Runtime


class InferencePool:
    """Threads that each take one batch at a time; on a GPU one copies while the other computes.

    One matrix product on two cores waits for the slower of them, and the steps between products are bound by memory:
    two batches on a core each do not wait for each other, and rarely compete for memory.
    """

    def __init__(self, model: Callable[[Tensor], list[Any]], runtime: Runtime) -> None:
        self._model = model
        self._device = runtime.device
        self._threads = runtime.threads
        self._local = local()
        self._outside = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(runtime.concurrency, "inference", initializer=self._init_worker)

    def submit(self, pixels: Tensor) -> "Future[list[Any]]":
        """Future results of a batch; `pixels` must not change until then."""
        return self._pool.submit(self._run, pixels)

    def close(self) -> None:
        """Accept no more batches, without waiting for those in progress."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(self._outside)  # of threads to come: a pool's own number is also torch's for these

    def _init_worker(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP keeps the number for each thread that starts work
        on_gpu = self._device.startswith("cuda")
        self._local.stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]

    def _run(self, pixels: Tensor) -> list[Any]:
        with torch.cuda.stream(self._local.stream):  # None: nothing to switch
            return self._model(pixels)
