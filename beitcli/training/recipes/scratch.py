"""Training recipe of a small BEiT from random weights, for thousands of small images.

It is tuned for an hour or two on two cores, and derives from the recipe of the bundled demonstration model
(`beitcli/demo/README.md`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Generator, Tensor
from transformers import BeitConfig

from beitcli.model.cpu.toolchain import compiler
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime
from beitcli.training.data.augmentation import jittered, mixed, shifted_and_flipped, smoothed
from beitcli.training.recipes.initialization import init_attention
from beitcli.training.recipes.optimizers import BIAS_RATE, muon_and_adamw
from beitcli.training.recipes.patch_dropout import DroppingBeit
from beitcli.training.recipes.recipe import Length, Method, Schedule
from beitcli.training.recipes.sizes import SCRATCH_SHAPES
from beitcli.training.settings import WAY

WORTH_COMPILING = 500
"""Steps above which a training repays the minute of compiling its layers."""

RATE = 2.5e-3
WEIGHT_DECAY = 0.05
STOCHASTIC_DEPTH = 0.1
LAYER_SCALE = 0.1
WARMUP_STEPS = 300
CLIP = 1.0
AVERAGE_DECAY = 0.998

DROPPED, DROPPED_UNTIL = 0.45, 0.9
MIXED, MIXED_UNTIL = 0.4, 0.85
ALPHAS = (0.8, 1.0)  # of mixup and cutmix, as the BEiT paper fine-tunes
SMOOTHING = 0.05
JITTER = 0.2


@dataclass(frozen=True, slots=True)
class ScratchPlan:
    """Options of a training from random weights."""

    shape: str
    image_size: int
    patch_size: int
    epochs: int
    batch_size: int
    accumulate: int
    rate: float
    seed: int
    dtype: str

    @property
    def preprocessing(self) -> Preprocessing:
        """Resizing to squares, as in the Hub's BEiT checkpoints."""
        return Preprocessing((self.image_size,) * 2, None, Resampling.BILINEAR, 1 / 255, (0.5,) * 3, (0.5,) * 3)

    @property
    def training_preprocessing(self) -> Preprocessing:
        return self.preprocessing

    def settings(self) -> Mapping[str, Any]:
        return {WAY: "--from-scratch", **asdict(self)}

    def method(self, classes: tuple[str, ...], runtime: Runtime, length: Length) -> Method:
        description = self._description(length)
        return scratch_method(self._network(classes), classes, self.rate, self.accumulate, runtime, length, description)

    def _network(self, classes: tuple[str, ...]) -> DroppingBeit:
        torch.manual_seed(self.seed)
        shape = SCRATCH_SHAPES[self.shape]
        config = BeitConfig(
            hidden_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=4 * shape.hidden,
            image_size=self.image_size,
            patch_size=self.patch_size,
            use_relative_position_bias=True,
            use_mean_pooling=True,
            layer_scale_init_value=LAYER_SCALE,
            drop_path_rate=STOCHASTIC_DEPTH,
            id2label=dict(enumerate(classes)),
            label2id={name: number for number, name in enumerate(classes)},
        )
        network = DroppingBeit(config)
        init_attention(network)
        return network

    def _description(self, length: Length) -> str:
        return (
            f"A BEiT of size `{self.shape}` from random weights, heads initialised to the nine nearest "
            f"patches, images of {self.image_size} pixels in patches of {self.patch_size}. {self.epochs} epochs, "
            + describe_recipe(self.rate, length)
        )


def scratch_method(
    network: DroppingBeit,
    classes: tuple[str, ...],
    rate: float,
    accumulate: int,
    runtime: Runtime,
    length: Length,
    description: str,
) -> Method:
    """The recipe for this network on the runtime's device."""
    # on an H200 (torch 2.11, 30 epochs of CIFAR-10) compiled trainings ended at 23 to 77 %, not at the CPU's 85 %
    if length.steps >= WORTH_COMPILING and runtime.device == "cpu" and compiler() is not None:
        network.compile_layers()
    dtype = torch.bfloat16 if runtime.dtype == "bf16" else torch.float32
    optimizer = muon_and_adamw(network.to(runtime.device), rate, WEIGHT_DECAY, dtype)
    schedule = Schedule(_warmup_steps(length), CLIP, AVERAGE_DECAY, accumulate)
    return Method(network, network.classifier, optimizer, ScratchAugment(len(classes)), schedule, description)


def describe_recipe(rate: float, length: Length) -> str:
    """The recipe as a part of the card's description."""
    return (
        f"in batches of {length.step_size}: Muon for the matrices of the layers and of the patches, "
        f"AdamW for the other parameters, peak rate {rate:g} ({BIAS_RATE} times that for the position bias) "
        f"after {_warmup_steps(length)} steps, then a cosine; weight decay {WEIGHT_DECAY}, stochastic depth "
        f"{STOCHASTIC_DEPTH}, {DROPPED:.0%} patch dropout for {DROPPED_UNTIL:.0%} of the steps, mixup or cutmix "
        f"on {MIXED:.0%} of the batches for {MIXED_UNTIL:.0%}, label smoothing {SMOOTHING}; "
        f"shifts, flips and colour jitter; averaged weights ({AVERAGE_DECAY})."
    )


def _warmup_steps(length: Length) -> int:
    return min(WARMUP_STEPS, length.steps // 2)


@dataclass(frozen=True, slots=True)
class ScratchAugment:
    """Shifts, flips and colour jitter; mixup or cutmix of some batches, but not of the last ones."""

    classes: int

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> dict[str, Any]:
        shifted = shifted_and_flipped(pixels, pixels.shape[1] // 8, generator)
        images = jittered(shifted.float() / 255, JITTER, generator)
        soft = smoothed(targets, self.classes, SMOOTHING)
        if progress < MIXED_UNTIL and torch.rand((), generator=generator) < MIXED:
            images, soft = mixed(images, soft, ALPHAS, generator)
        normalised = (images * 2 - 1).permute(0, 3, 1, 2).contiguous()
        return {"pixel_values": normalised, "targets": soft, "drop": DROPPED if progress < DROPPED_UNTIL else 0.0}
