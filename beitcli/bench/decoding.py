"""Decoding alone: files to pixels, in one worker."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from beitcli.bench.clock import Effort, Rate, measured_rate
from beitcli.inputs.decode import Decoding, outcome
from beitcli.model.preprocessing import Preprocessing
from beitcli.records import Source

_SAMPLE = 64
"""Most images decoded each time: large ones take a tenth of a second each."""


@dataclass(frozen=True, slots=True)
class DecodingRates:
    """Images per second decoded and resized by one core; `fast` with `fast_decode`."""

    full: Rate
    fast: Rate


def decoding_rates(paths: Sequence[str], preprocessing: Preprocessing, effort: Effort) -> DecodingRates:
    """The rates for a sample of these images, evenly spaced."""
    sample = [Source(path) for path in paths[:: -(-len(paths) // _SAMPLE)]]
    plain = Decoding(seconds=0)
    full, fast = (
        measured_rate(len(sample), partial(_decode, sample, preprocessing, decoding), effort)
        for decoding in (plain, replace(plain, scaled_to=preprocessing.scaled_to))
    )
    return DecodingRates(full, fast)


def _decode(sample: Sequence[Source], preprocessing: Preprocessing, decoding: Decoding) -> None:
    for source in sample:
        outcome(source, preprocessing, decoding, nullcontext())
