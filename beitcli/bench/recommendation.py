"""Measurements -> recommended options, and the bottleneck of this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from beitcli.bench.decoding import DecodingRates
from beitcli.bench.model import ModelRate
from beitcli.model.runtime import INT8

_AS_GOOD = 0.97
"""A smaller batch size with this share of the best rate is preferred: less memory, lower latency."""

_HEADROOM = 1.2
"""Decoding should be faster than the model by this factor, so that the model never waits."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Recommended options, and the bottleneck in one sentence."""

    dtype: str
    compiled: bool
    batch_size: int
    workers: int
    limit: str

    @property
    def options(self) -> str:
        return f"--dtype {self.dtype}{' --compile' if self.compiled else ''} -b {self.batch_size} -j {self.workers}"


def recommend(models: Sequence[ModelRate], decoding: DecodingRates, cores: int) -> Recommendation:
    """Recommend the fastest dtype, the smallest batch size that is as good as the best, and enough workers.

    int8 is never recommended: only the user knows which differences of the results are small enough.
    """
    models = [rate for rate in models if rate.runtime.dtype != INT8]
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
    model_rate, decoding_rate = model.images.per_second, cores * decoding.full.per_second
    if decoding_rate < model_rate:
        return (
            f"Decoding limits this machine: {cores} cores decode {decoding_rate:.0f} images/s, the model could take"
            f" {model_rate:.0f}; with --fast-decode it is {cores * decoding.fast.per_second:.0f}."
        )
    return (
        f"The model limits this machine: an image takes {1000 / model_rate:.1f} ms in it and"
        f" {1000 * cores / decoding_rate:.1f} ms of one core to decode; it reaches {model.share:.0%} of the rate of its"
        " linear maps alone."
    )
