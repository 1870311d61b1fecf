"""Batches on their way through a classifier: several at once, each on its share of the cores or on its own stream."""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import local
from typing import TypeAlias

import torch
from torch import Tensor

from beitcli.model.classifier import Classifier
from beitcli.model.runtime import Runtime
from beitcli.records import Score

Answers: TypeAlias = list[tuple[Score, ...]]


class Lanes:
    """Threads that each take one batch at a time; on a GPU one copies while the other computes.

    One matrix product on two cores waits for the slower of them, and what lies between two products is bound by memory:
    two batches on a core each wait for nobody, and are seldom at the same place.
    """

    def __init__(self, classifier: Classifier, runtime: Runtime) -> None:
        self._classifier = classifier
        self._device = runtime.device
        self._threads = runtime.threads
        self._own = local()
        self._pool = ThreadPoolExecutor(runtime.lanes, "lane", initializer=self._settle_in)

    def submit(self, pixels: Tensor) -> "Future[Answers]":
        """What the classifier says of a batch, later; `pixels` must stay as they are until then."""
        return self._pool.submit(self._answers, pixels)

    def close(self) -> None:
        """Takes no more batches, and does not wait for those that are being computed."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _settle_in(self) -> None:
        torch.set_num_threads(self._threads)  # OpenMP keeps the number for each thread that starts work
        on_gpu = self._device.startswith("cuda")
        self._own.stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]

    def _answers(self, pixels: Tensor) -> Answers:
        with torch.cuda.stream(self._own.stream):  # None: nothing to switch
            return self._classifier(pixels)
