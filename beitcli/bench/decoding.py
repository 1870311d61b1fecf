"""Decoding alone: files to pixels, as one worker does it."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

from beitcli.bench.clock import Effort, Rate, measured_rate
from beitcli.inputs.decode import Decoding, outcome
from beitcli.model.recipe import Recipe
from beitcli.records import Source

_SAMPLE = 64
"""So many pictures are decoded each time: those of a large camera take a tenth of a second each."""


@dataclass(frozen=True, slots=True)
class DecodingRates:
    """Pictures a second of one core, decoded and resized; `fast` with `--fast-decode`."""

    full: Rate
    fast: Rate


def decoding_rates(paths: Sequence[str], recipe: Recipe, effort: Effort) -> DecodingRates:
    """The rates for a sample of these pictures, spread over all of them."""
    sample = [Source(path) for path in paths[:: -(-len(paths) // _SAMPLE)]]
    plain = Decoding(seconds=0)
    full, fast = (
        measured_rate(len(sample), partial(_decode, sample, recipe, decoding), effort)
        for decoding in (plain, replace(plain, scaled_to=recipe.scaled_to))
    )
    return DecodingRates(full, fast)


def _decode(sample: Sequence[Source], recipe: Recipe, decoding: Decoding) -> None:
    for source in sample:
        outcome(source, recipe, decoding, nullcontext())
