"""A published BEiT taught other classes: the paper's fine-tuning recipe.

The figures are those of `get_started_for_image_classification.md` in the paper's own code (unilm/beit), for models that
are self-supervised pre-trained, which are those of the paper's appendix (arXiv:2106.08254); what that file does not
name has the defaults of `run_class_finetuning.py` beside it.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Resampling
from torch import Generator, Tensor, nn
from transformers import BeitForImageClassification

from beitcli.errors import ModelError, UsageError
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.network import resized_positions, resized_table, trained_grid
from beitcli.model.recipe import Recipe, checkpoint_recipe
from beitcli.model.runtime import Runtime
from beitcli.model.weights import weight_errors
from beitcli.training.augmentation import cropped, erased, jittered, mixed, smoothed
from beitcli.training.method import Length, Method, Schedule
from beitcli.training.optimiser import layer_wise_adamw

WEIGHT_DECAY = 0.05
ALPHAS = (0.8, 1.0)  # of mixup and cutmix
SMOOTHING = 0.1
JITTER = 0.4
ERASED = 0.25
CLIP = 1.0  # of the README's commands for ImageNet-22k; those for ImageNet-1k do not clip
AVERAGE_DECAY = 0.9999
HEAD_SPREAD = 0.02 * 0.001  # a normal distribution cut at two, times `--init_scale`
SHARES, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # of timm's RandomResizedCropAndInterpolation

_LARGE = 24
_KEPT = 8 / 7  # the side of what is kept to what is cropped from it: 256 to 224


@dataclass(frozen=True, slots=True)
class _SizeRecipe:
    """What depends on the size of the model: `rate` is for batches of 1,024, `warmup` the share of the epochs."""

    rate: float
    layer_decay: float
    stochastic_depth: float
    warmup: float


_BASE = _SizeRecipe(4e-3, 0.65, 0.1, 20 / 100)
_OF_LARGE = _SizeRecipe(1e-3, 0.75, 0.2, 5 / 50)


@dataclass(frozen=True, slots=True)
class FinetunePlan:
    """What a fine-tuning is asked for; without `rate` it is the recipe's, scaled with the batch."""

    checkpoint: Checkpoint
    image_size: int | None
    epochs: int
    batch_size: int
    accumulate: int
    rate: float | None
    checkpoint_gradients: bool
    seed: int
    dtype: str

    @property
    def recipe(self) -> Recipe:
        return checkpoint_recipe(self.checkpoint.processor, self.image_size)

    @property
    def learning_recipe(self) -> Recipe:
        """Whole pictures, a little larger than what is cropped from them."""
        recipe = self.recipe
        side = round(self._side * _KEPT)
        return Recipe((side, side), None, Resampling.BICUBIC, recipe.factor, recipe.mean, recipe.std)

    @property
    def _side(self) -> int:
        height, width = self.recipe.size
        if height != width:
            raise UsageError(f"`{self.checkpoint.name}` takes pictures of {height} × {width}", "add --image-size")
        return height

    def settings(self) -> Mapping[str, Any]:
        names = ("image_size", "epochs", "batch_size", "accumulate", "rate", "seed", "dtype")
        return {
            "way": "--finetune",
            "model": self.checkpoint.folder,
            **{name: getattr(self, name) for name in names},
        }

    def method(self, classes: tuple[str, ...], runtime: Runtime, length: Length) -> Method:
        layers = self.checkpoint.config.get("num_hidden_layers", 12)
        size = _OF_LARGE if layers >= _LARGE else _BASE
        rate = self.rate or size.rate * length.step_size / 1024
        network = adapted_network(self.checkpoint, classes, self._side, size.stochastic_depth, self.seed)
        if self.checkpoint_gradients:
            network.gradient_checkpointing_enable()
        optimiser = layer_wise_adamw(network.to(runtime.device), layers, rate, WEIGHT_DECAY, size.layer_decay)
        schedule = Schedule(round(size.warmup * length.steps), CLIP, AVERAGE_DECAY, self.accumulate)
        augment = FinetuneAugment(len(classes), self._side, self.recipe)
        return Method(network, optimiser, augment, schedule, self._text(size, rate, length.step_size))

    def _text(self, size: _SizeRecipe, rate: float, step_size: int) -> str:
        return (
            f"`{self.checkpoint.name}`, fine-tuned. {self.epochs} epochs in batches of "
            f"{step_size}: AdamW, peak rate {rate:g} after {size.warmup:.0%} of the steps, "
            f"then a cosine, {size.layer_decay} times as much for each layer further down; weight decay "
            f"{WEIGHT_DECAY}, stochastic depth {size.stochastic_depth}, mixup {ALPHAS[0]} or cutmix {ALPHAS[1]}, "
            f"label smoothing {SMOOTHING}, random crops and flips, jitter {JITTER}, random erasing {ERASED}; "
            f"averaged weights ({AVERAGE_DECAY} at most)."
        )


def adapted_network(
    checkpoint: Checkpoint, classes: tuple[str, ...], side: int, stochastic_depth: float, seed: int
) -> BeitForImageClassification:
    """The checkpoint for pictures of that side and these classes.

    Positions are interpolated as they are at inference. The head stays where the classes are the checkpoint's own;
    else it is a new one of tiny weights, which the seed decides. Raises ModelError where weights are missing.
    """
    path = checkpoint.weight_file()
    with weight_errors(path):
        source, loading = BeitForImageClassification.from_pretrained(
            checkpoint.folder, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    lacking = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    lacking = [name for name in lacking if not name.startswith(("classifier.", "beit.pooler."))]
    if lacking:
        raise ModelError(f"`{checkpoint.name}` has no `{lacking[0]}` of the shape that its config says")
    config = copy.deepcopy(source.config)
    config.image_size, config.drop_path_rate = side, stochastic_depth
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.problem_type = None
    torch.manual_seed(seed)
    network = BeitForImageClassification(config)
    state = _resized(source.state_dict(), checkpoint, side)
    if classes != checkpoint.labels:
        nn.init.trunc_normal_(network.classifier.weight, std=HEAD_SPREAD, a=-2 * HEAD_SPREAD, b=2 * HEAD_SPREAD)
        nn.init.zeros_(network.classifier.bias)
        state |= {name: value for name, value in network.state_dict().items() if name.startswith("classifier.")}
    network.load_state_dict(state)
    return network


def _resized(state: Mapping[str, Tensor], checkpoint: Checkpoint, side: int) -> dict[str, Tensor]:
    trained, grid = trained_grid(checkpoint.config), (side // checkpoint.patch_side,) * 2
    resize = {"relative_position_bias_table": resized_table, "position_embeddings": resized_positions}
    return {
        name: resize[last](value, trained, grid) if (last := name.rpartition(".")[2]) in resize else value
        for name, value in state.items()
    }


@dataclass(frozen=True, slots=True)
class FinetuneAugment:
    """Random crops, flipped, jittered, with erased boxes, every batch blended."""

    classes: int
    side: int
    recipe: Recipe

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> dict[str, Any]:  # noqa: ARG002
        pictures = cropped(pixels.float() / 255, self.side, SHARES, RATIOS, generator)
        pictures = jittered(pictures, JITTER, generator)
        normalised = (pictures * (255 * self.recipe.factor) - torch.tensor(self.recipe.mean)) / torch.tensor(
            self.recipe.std
        )
        shares = smoothed(targets, self.classes, SMOOTHING)
        blended, shares = mixed(erased(normalised, ERASED, generator), shares, ALPHAS, generator)
        return {"pixel_values": blended.permute(0, 3, 1, 2).contiguous(), "targets": shares}
