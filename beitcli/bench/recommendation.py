"""What was measured -> the options to run with here, and what it is that limits this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from beitcli.bench.decoding import DecodingRates
from beitcli.bench.model import ModelRate

_AS_GOOD = 0.97
"""A smaller batch size that gives this share of the best rate is better: it takes less memory and answers sooner."""

_HEADROOM = 1.2
"""Pictures should be decoded this much faster than the model takes them, so that it never waits for one."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The options to run with, and in one sentence what limits the machine."""

    dtype: str
    compiled: bool
    batch_size: int
    workers: int
    limit: str

    @property
    def options(self) -> str:
        return f"--dtype {self.dtype}{' --compile' if self.compiled else ''} -b {self.batch_size} -j {self.workers}"


def recommend(models: Sequence[ModelRate], decoding: DecodingRates, cores: int) -> Recommendation:
    """The smallest batch size that is as good as the best, in the fastest dtype, and enough workers to feed it."""
    fastest = max(models, key=lambda rate: rate.images.per_second)
    chosen = min(
        (
            rate
            for rate in models
            if rate.runtime == fastest.runtime and rate.images.per_second >= _AS_GOOD * fastest.images.per_second
        ),
        key=lambda rate: rate.batch_size,
    )
    workers = ceil(_HEADROOM * chosen.images.per_second / decoding.full.per_second)
    return Recommendation(
        chosen.runtime.dtype,
        chosen.runtime.compiled,
        chosen.batch_size,
        max(1, min(workers, cores)),
        _limit(chosen, decoding, cores),
    )


def _limit(model: ModelRate, decoding: DecodingRates, cores: int) -> str:
    images, pictures = model.images.per_second, cores * decoding.full.per_second
    if pictures < images:
        return (
            f"Decoding limits this machine: {cores} cores decode {pictures:.0f} pictures/s where the model takes"
            f" {images:.0f}; with --fast-decode it is {cores * decoding.fast.per_second:.0f}."
        )
    return (
        f"The model limits this machine: a picture takes {1000 / images:.1f} ms in it and {1000 * cores / pictures:.1f}"
        f" ms of one core to be decoded; it reaches {model.share:.0%} of the rate of its linear maps alone."
    )
