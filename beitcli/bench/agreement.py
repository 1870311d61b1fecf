"""How near the logits of each way of running the model are to those in float32, on pictures."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from beitcli.inputs.decode import Decoding, outcome
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.forward import Forward
from beitcli.model.recipe import Recipe
from beitcli.model.runtime import Runtime
from beitcli.records import Failure, Source

_SAMPLE, _BATCH = 64, 8


@dataclass(frozen=True, slots=True)
class Agreement:
    """One way of running against uncompiled float32, over so many pictures.

    `same_label` is the share with the same best label, `largest` the largest difference of a logit as a share of the
    spread of its picture's logits, from the smallest to the largest.
    """

    runtime: Runtime
    pictures: int
    same_label: float
    largest: float


def agreements(
    paths: Sequence[str], checkpoint: Checkpoint, recipe: Recipe, runtimes: Iterable[Runtime]
) -> list[Agreement]:
    """How far each runtime is off on a sample of these pictures, spread over all of them."""
    pixels = _pixels(paths[:: -(-len(paths) // _SAMPLE)], recipe)
    exact = _logits(pixels, checkpoint, recipe, Runtime("cpu", "fp32"))
    spreads = exact.amax(1) - exact.amin(1)
    found = []
    for runtime in runtimes:
        logits = _logits(pixels, checkpoint, recipe, runtime)
        same = (logits.argmax(1) == exact.argmax(1)).float().mean()
        largest = ((logits - exact).abs().amax(1) / spreads).max()
        found.append(Agreement(runtime, len(pixels), float(same), float(largest)))
    return found


def _pixels(sample: Sequence[str], recipe: Recipe) -> Tensor:
    outcomes = (outcome(Source(path), recipe, Decoding(seconds=0), nullcontext()) for path in sample)
    return torch.stack([torch.from_numpy(found[0]) for found in outcomes if not isinstance(found, Failure)])


def _logits(pixels: Tensor, checkpoint: Checkpoint, recipe: Recipe, runtime: Runtime) -> Tensor:
    forward = Forward(checkpoint, recipe, runtime, _BATCH)
    return torch.cat([forward(batch).cpu() for batch in torch.split(pixels, _BATCH)])
