"""Results in int8 compared with those in the dtype that the run would have taken, on its first images."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from beitcli.errors import ModelError
from beitcli.records import Score

log = logging.getLogger(__name__)

Model: TypeAlias = Callable[[Tensor], list[Any]]

MOST_IMAGES = 32
SHARE = 0.05
"""Images of a run that are computed twice: so many, or this share of a smaller one."""

_SECONDS = 20.0
"""Seconds after which no further batch is computed twice."""

_LEAST_SAME, _MOST_CHANGE, _LEAST_SIMILAR = 0.97, 0.2, 0.97


class SelfCheck:
    """The comparison with `reference`, a model in another dtype that is loaded for it, on `images` images.

    It runs beside the run, in a thread of its own with `threads` threads of torch.
    """

    def __init__(self, reference: Callable[[], Model], images: int, threads: int) -> None:
        self._load = reference
        self._missing = images
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._model: Future[Model] | None = None
        self._compared: list[Future[tuple[list[Any], list[Any]]]] = []
        self._spent = 0.0
        self._is_done = not images

    def start(self) -> None:
        """Begin to load the reference."""
        if not self._is_done and self._pool is None:
            self._pool = ThreadPoolExecutor(1, "check", torch.set_num_threads, (self._threads,))
            self._model = self._pool.submit(self._load)

    def compare(self, pixels: Tensor, results: Sequence[Any]) -> None:
        """Begin to compute these images again, as far as there are too few for the comparison."""
        count = min(len(pixels), self._missing)
        if count and self._pool:
            self._missing -= count
            self._compared.append(self._pool.submit(self._computed, pixels[:count].clone(), results[:count]))

    def is_done(self, wait: bool) -> bool:
        """True if enough images are compared, or `wait` for those that are to be. Raises ModelError if they differ."""
        if not self._is_done and (wait or (not self._missing and all(each.done() for each in self._compared))):
            self._finish()
        return self._is_done

    def _computed(self, pixels: Tensor, results: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results, and those of the reference; none if it has taken too long already."""
        if self._model is None or self._spent > _SECONDS:
            return [], []
        began = time.monotonic()
        expected = self._model.result()(pixels)
        self._spent += time.monotonic() - began
        return list(results), expected

    def _finish(self) -> None:
        """Say how well all results so far agree. Raises ModelError if they do not."""
        results: list[Any] = []
        expected: list[Any] = []
        for each in self._compared:
            ours, theirs = each.result()
            results += ours
            expected += theirs
        self._is_done, self._model = True, None
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if not results:
            return
        text, is_good = (_labels if isinstance(results[0], tuple) else _features)(results, expected)
        if not is_good:
            raise ModelError(f"int8 spoils this model: {text}", "use `dtype=auto`, or `check_int8=False`")
        log.info("int8: %s", text)


def _labels(results: Sequence[tuple[Score, ...]], expected: Sequence[tuple[Score, ...]]) -> tuple[str, bool]:
    """The agreement of labels and scores in words, and whether it is enough.

    Scores beyond 1 are those of a regression; their change is relative.
    """
    same = sum(here[0].index == there[0].index for here, there in zip(results, expected, strict=True))
    change = max(_change(here, there) for here, there in zip(results, expected, strict=True))
    text = f"same best label on {same} of {len(results)}, largest score change {change:.2g}"
    is_same = round(same / len(results), 2) >= _LEAST_SAME  # 31 of 32 are 97 %: two scores may be nearly equal
    return text, is_same and change <= _MOST_CHANGE


def _change(here: tuple[Score, ...], there: tuple[Score, ...]) -> float:
    """The largest change of a score that both have."""
    scores = {score.index: score.score for score in here}
    both = [(scores[score.index], score.score) for score in there if score.index in scores]
    return max((abs(a - b) / max(1.0, abs(b)) for a, b in both), default=1.0)


def _features(results: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> tuple[str, bool]:
    """The agreement of features in words, and whether it is enough."""
    pairs = [
        (here.ravel().astype(float), there.ravel().astype(float)) for here, there in zip(results, expected, strict=True)
    ]
    similar = min(float(a @ b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30) for a, b in pairs)
    return f"features of {len(pairs)} images, smallest cosine similarity {similar:.4f}", similar >= _LEAST_SIMILAR
