"""A small BEiT from random weights: the recipe of the bundled demonstration model, for thousands of small pictures.

It is made to reach most in an hour on two cores: CIFAR-10's 50,000 pictures to 85.4 % (see `beitcli/demo/README.md`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Generator, Tensor
from transformers import BeitConfig

from beitcli.model.recipe import Recipe
from beitcli.training.augmentation import jittered, mixed, shifted_and_flipped, smoothed
from beitcli.training.dropping import DroppingBeit
from beitcli.training.loop import Schedule
from beitcli.training.optimiser import muon_and_adamw
from beitcli.training.shapes import ScratchShape

RATE = 1.5e-3
WEIGHT_DECAY = 0.05
BATCH = 256
STOCHASTIC_DEPTH = 0.1
LAYER_SCALE = 0.1
SCHEDULE = Schedule(warmup_steps=300, clip=1.0, average_decay=0.998)

DROPPED, DROPPED_UNTIL = 0.45, 0.82
MIXED, MIXED_UNTIL = 0.7, 0.92
SMOOTHING = 0.05
ALPHAS = (0.8, 1.0)
JITTER = 0.2


def scratch_recipe(side: int) -> Recipe:
    """Pictures resized to squares of `side` pixels, as the Hub's BEiT checkpoints have it."""
    return Recipe((side, side), None, Resampling.BILINEAR, 1 / 255, (0.5,) * 3, (0.5,) * 3)


def new_network(shape: ScratchShape, side: int, patch: int, classes: Sequence[str], seed: int) -> DroppingBeit:
    """A BEiT of random weights that the seed decides."""
    torch.manual_seed(seed)
    config = BeitConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        image_size=side,
        patch_size=patch,
        use_relative_position_bias=True,
        use_mean_pooling=True,
        layer_scale_init_value=LAYER_SCALE,
        drop_path_rate=STOCHASTIC_DEPTH,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
    )
    return DroppingBeit(config)


def optimiser_for(network: DroppingBeit, rate: float) -> torch.optim.Optimizer:
    return muon_and_adamw(network, rate, WEIGHT_DECAY)


@dataclass(frozen=True, slots=True)
class ScratchAugment:
    """Moved, flipped and jittered pictures, most batches blended, the last ones as they are."""

    classes: int

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> dict[str, Any]:
        moved = shifted_and_flipped(pixels, pixels.shape[1] // 8, generator)
        pictures = jittered(moved.float() / 255, JITTER, generator)
        shares = smoothed(targets, self.classes, SMOOTHING)
        if progress < MIXED_UNTIL and torch.rand((), generator=generator) < MIXED:
            pictures, shares = mixed(pictures, shares, ALPHAS, generator)
        normalised = (pictures * 2 - 1).permute(0, 3, 1, 2).contiguous()
        return {"pixel_values": normalised, "targets": shares, "drop": DROPPED if progress < DROPPED_UNTIL else 0.0}
