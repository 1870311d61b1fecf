"""Results in int8 compared with those in the dtype that the run would have taken, on its first images."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from beitcli.errors import ModelError
from beitcli.records import Score

log = logging.getLogger(__name__)

MOST_IMAGES = 32
SHARE = 0.05
"""Images of a run that are computed twice: so many, or this share of a smaller one."""

_SECONDS = 20.0
"""Seconds after which no further batch is computed twice."""

_LEAST_SAME, _MOST_CHANGE, _LEAST_SIMILAR = 0.97, 0.2, 0.97


class SelfCheck:
    """The comparison with `reference`, a model in another dtype that is loaded for it, on `images` images."""

    def __init__(self, reference: Callable[[], Callable[[Tensor], list[Any]]], images: int) -> None:
        self._load = reference
        self._model: Callable[[Tensor], list[Any]] | None = None
        self._images = images
        self._spent = 0.0
        self._results: list[Any] = []
        self._expected: list[Any] = []
        self.is_done = not images

    def compare(self, pixels: Tensor, results: Sequence[Any]) -> None:
        """Compute these images again. Raises ModelError if with them enough are compared, and they differ too much."""
        count = min(len(pixels), self._images - len(self._results))
        began = time.monotonic()
        self._model = self._model or self._load()
        self._expected += self._model(pixels[:count])
        self._results += results[:count]
        self._spent += time.monotonic() - began
        if len(self._results) == self._images or self._spent > _SECONDS:
            self.finish()

    def finish(self) -> None:
        """Say how well all results so far agree. Raises ModelError if they do not."""
        if self.is_done or not self._results:
            return
        self.is_done, self._model = True, None
        text, is_good = (_labels if isinstance(self._results[0], tuple) else _features)(self._results, self._expected)
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
    return text, same >= _LEAST_SAME * len(results) and change <= _MOST_CHANGE


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
