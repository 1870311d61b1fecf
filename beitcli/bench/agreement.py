"""Agreement of each runtime's logits with those in float32, on images."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from beitcli.inputs.decode import Decoding, outcome
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.inference import Forward
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime
from beitcli.records import Failure, Source

_SAMPLE, _BATCH = 64, 8


@dataclass(frozen=True, slots=True)
class Agreement:
    """A runtime compared with uncompiled float32, over `images` images.

    `same_label` is the share with the same best label, `largest` the largest logit difference as a share of the range
    of its image's logits.
    """

    runtime: Runtime
    images: int
    same_label: float
    largest: float


def agreements(
    paths: Sequence[str], checkpoint: Checkpoint, preprocessing: Preprocessing, runtimes: Iterable[Runtime]
) -> list[Agreement]:
    """Compare each runtime with float32 on a sample of these images, evenly spaced."""
    pixels = _pixels(paths[:: -(-len(paths) // _SAMPLE)], preprocessing)
    exact = _logits(pixels, checkpoint, preprocessing, Runtime("cpu", "fp32"))
    spreads = exact.amax(1) - exact.amin(1)
    found = []
    for runtime in runtimes:
        logits = _logits(pixels, checkpoint, preprocessing, runtime)
        same = (logits.argmax(1) == exact.argmax(1)).float().mean()
        largest = ((logits - exact).abs().amax(1) / spreads).max()
        found.append(Agreement(runtime, len(pixels), float(same), float(largest)))
    return found


def _pixels(sample: Sequence[str], preprocessing: Preprocessing) -> Tensor:
    outcomes = (outcome(Source(path), preprocessing, Decoding(seconds=0), nullcontext()) for path in sample)
    return torch.stack([torch.from_numpy(found[0]) for found in outcomes if not isinstance(found, Failure)])


def _logits(pixels: Tensor, checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime) -> Tensor:
    forward = Forward(checkpoint, preprocessing, runtime, _BATCH)
    return torch.cat([forward(batch).cpu() for batch in torch.split(pixels, _BATCH)])
