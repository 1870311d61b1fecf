"""Recipe of a pre-training: the paper's, or for narrow networks that of a training from scratch."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL.Image import Resampling
from torch.optim import Optimizer

from beitcli.model.checkpoint import Checkpoint
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.preprocessing import Preprocessing, checkpoint_preprocessing
from beitcli.model.runtime import Runtime
from beitcli.training.pretraining.initial_networks import Geometry, continued_network, new_network
from beitcli.training.pretraining.masked_batches import MaskedAugment, with_tokens
from beitcli.training.pretraining.masked_network import MaskedBeit
from beitcli.training.pretraining.masks import Masking, masking_for
from beitcli.training.pretraining.tokenizers.protocol import Tokenizer
from beitcli.training.pretraining.views import JITTER, SMALL_JITTER, CroppedViews, PlainViews, ShiftedViews, Views
from beitcli.training.recipes.optimizers import BIAS_RATE, layer_wise_adamw, muon_and_adamw
from beitcli.training.recipes.recipe import Length, Method, Schedule
from beitcli.training.recipes.scratch import AVERAGE_DECAY, CLIP, WARMUP_STEPS, WEIGHT_DECAY, WORTH_COMPILING
from beitcli.training.recipes.sizes import ScratchShape
from beitcli.training.settings import MODEL, WAY, base_model

NARROW_RATE = 5e-3
STOCHASTIC_DEPTH = 0.1
LAYER_SCALE, LARGE_LAYER_SCALE = 0.1, 1e-5
PAPER_RATE, PAPER_FINAL_RATE = 1.5e-3, 1e-5  # for batches of 2,048, and where the cosine ends
PAPER_CLIP = 3.0
WARMUP_EPOCHS, WARMUP_SHARE = 10, 0.1
"""Warm-up in epochs, of the 800 in the paper, and the most of a shorter training."""

_LARGE_LAYERS = 24
_KEPT_RATIO = 8 / 7  # side of the kept pixels / side of the crops, as for fine-tuning


@dataclass(frozen=True, slots=True)
class PretrainPlan:
    """Options of a pre-training, of a new network of this size or of a checkpoint's; without `rate`, the recipe's.

    `shape` is the network's, and `tokens` identifies the tokenizer, whose tokens the checkpoint's head knows if
    `keeps_head`.
    """

    size: str | None
    shape: ScratchShape
    checkpoint: Checkpoint | None
    geometry: Geometry
    tokens: str
    keeps_head: bool
    mask: float
    epochs: int
    batch_size: int
    accumulate: int
    rate: float | None
    seed: int
    dtype: str

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the checkpoint, or resizing to squares, as in the Hub's BEiT checkpoints."""
        if self.checkpoint:
            return checkpoint_preprocessing(self.checkpoint.processor, self.geometry.image)
        return Preprocessing((self.geometry.image,) * 2, None, Resampling.BILINEAR, 1 / 255, (0.5,) * 3, (0.5,) * 3)

    @property
    def training_preprocessing(self) -> Preprocessing:
        """Whole images, larger than the crops if there are any."""
        preprocessing = self.preprocessing
        side = self.geometry.image if self.shape.is_narrow else round(self.geometry.image * _KEPT_RATIO)
        resample = Resampling.BILINEAR if self.shape.is_narrow else Resampling.BICUBIC
        return Preprocessing((side, side), None, resample, preprocessing.factor, preprocessing.mean, preprocessing.std)

    @property
    def masking(self) -> Masking:
        return masking_for((self.geometry.grid,) * 2, self.mask)

    def settings(self) -> Mapping[str, Any]:
        names = ("size", "tokens", "mask", "epochs", "batch_size", "accumulate", "rate", "seed", "dtype")
        settings = {
            WAY: "pretrain",
            **{name: getattr(self, name) for name in names},
            "image_size": self.geometry.image,
            "patch_size": self.geometry.patch,
        }
        if self.checkpoint:
            settings[MODEL] = base_model(self.checkpoint.name, self.checkpoint.content_digest())
        return settings

    def method(self, tokenizer: Tokenizer, runtime: Runtime, length: Length) -> Method:
        """The network and its training for this length to predict these tokens, both on the runtime's device."""
        network = self._network(tokenizer.vocabulary)
        if self._is_compiled(length, runtime):
            network.compile_layers()
        rate = self.rate or (NARROW_RATE if self.shape.is_narrow else PAPER_RATE * length.step_size / 2048)
        schedule = self._schedule(length, rate)
        return Method(
            network=network,
            head=network.lm_head,
            optimizer=self._optimizer(network.to(runtime.device), rate, runtime),
            augment=MaskedAugment(self._views(tokenizer), self.masking, self.preprocessing),
            schedule=schedule,
            description=self._description(schedule, rate, length.step_size),
            with_targets=partial(with_tokens, tokenizer=tokenizer),
        )

    def plain_augment(self, tokenizer: Tokenizer) -> MaskedAugment:
        """Masks of images that are otherwise left as they are."""
        return MaskedAugment(PlainViews(self._token_side(tokenizer)), self.masking, self.preprocessing)

    def _network(self, vocabulary: int) -> MaskedBeit:
        if self.checkpoint:
            side = self.geometry.image
            return continued_network(self.checkpoint, side, vocabulary, STOCHASTIC_DEPTH, self.keeps_head, self.seed)
        shape = self.shape
        layer_scale = LARGE_LAYER_SCALE if shape.layers >= _LARGE_LAYERS else LAYER_SCALE
        return new_network(shape, self.geometry, vocabulary, STOCHASTIC_DEPTH, layer_scale, self.seed)

    def _is_compiled(self, length: Length, runtime: Runtime) -> bool:
        return length.steps >= WORTH_COMPILING and runtime.device == "cpu" and compiler() is not None

    def _optimizer(self, network: MaskedBeit, rate: float, runtime: Runtime) -> Optimizer:
        if self.shape.is_narrow:
            dtype = torch.bfloat16 if runtime.dtype == "bf16" else torch.float32
            return muon_and_adamw(network, rate, WEIGHT_DECAY, dtype)
        return layer_wise_adamw(network, self.shape.layers, rate, WEIGHT_DECAY, decay=1.0)

    def _schedule(self, length: Length, rate: float) -> Schedule:
        if self.shape.is_narrow:
            return Schedule(min(WARMUP_STEPS, length.steps // 2), CLIP, AVERAGE_DECAY, self.accumulate)
        warmup = round(length.steps * min(WARMUP_EPOCHS / self.epochs, WARMUP_SHARE))
        return Schedule(warmup, PAPER_CLIP, 0.0, self.accumulate, min(1.0, PAPER_FINAL_RATE / rate))

    def _views(self, tokenizer: Tokenizer) -> Views:
        kind = ShiftedViews if self.shape.is_narrow else CroppedViews
        return kind(self.geometry.image, self._token_side(tokenizer))

    def _token_side(self, tokenizer: Tokenizer) -> int:
        return self.geometry.grid * tokenizer.pixels_a_patch

    def _description(self, schedule: Schedule, rate: float, step_size: int) -> str:
        begun = f"`{self.checkpoint.name}`" if self.checkpoint else f"A BEiT of size `{self.size}` from random weights"
        narrow = self.shape.is_narrow
        optimizer = (
            "Muon for the matrices of the layers and of the patches, AdamW for the other parameters"
            if narrow
            else "AdamW"
        )
        bias = f" ({BIAS_RATE} times that for the position bias)" if narrow else ""
        augmented = (
            f"shifts, flips and colour jitter {SMALL_JITTER}"
            if narrow
            else f"colour jitter {JITTER}, flips, and one random crop for network and tokenizer"
        )
        averaged = f"averaged weights ({schedule.average_decay})" if schedule.average_decay else "no averaging"
        return (
            f"{begun}, pre-trained on images of {self.geometry.image} pixels in patches of {self.geometry.patch}, of "
            f"which at most {self.masking.most} of {self.geometry.grid**2} are masked, in blocks of "
            f"{self.masking.least} or more. {self.epochs} epochs in batches of {step_size}: {optimizer}, peak rate "
            f"{rate:g}{bias} after {schedule.warmup_steps} steps, then a cosine; weight decay {WEIGHT_DECAY}, "
            f"stochastic depth {STOCHASTIC_DEPTH}; {augmented}; {averaged}."
        )
