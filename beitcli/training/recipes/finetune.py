"""Fine-tuning of a published BEiT on other classes, by the paper's recipe.

The values are those of `get_started_for_image_classification.md` in the paper's own code (unilm/beit), for models with
self-supervised pre-training, as in the paper's appendix (arXiv:2106.08254); what that file does not name has the
defaults of `run_class_finetuning.py` beside it.
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
from beitcli.model.network import resized_positions, trained_grid
from beitcli.model.preprocessing import Preprocessing, checkpoint_preprocessing
from beitcli.model.runtime import Runtime
from beitcli.model.weights import is_finite, not_finite, weight_errors
from beitcli.training.data.augmentation import cropped, erased, jittered, mixed, smoothed
from beitcli.training.recipes.optimizers import layer_wise_adamw
from beitcli.training.recipes.position_bias import expanded, interpolated
from beitcli.training.recipes.recipe import LabelledPlan, Length, Method, Schedule
from beitcli.training.settings import MODEL, WAY, base_model

WEIGHT_DECAY = 0.05
ALPHAS = (0.8, 1.0)  # of mixup and cutmix
SMOOTHING = 0.1
JITTER = 0.4
ERASED = 0.25
CLIP = 1.0  # of the README's commands for ImageNet-22k; those for ImageNet-1k do not clip
AVERAGE_DECAY = 0.9999
HEAD_STD = 0.02 * 0.001  # of a normal distribution cut at two, times `--init_scale`
SHARES, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # of timm's RandomResizedCropAndInterpolation

_LARGE_LAYERS = 24
_KEPT_RATIO = 8 / 7  # side of the kept pixels / side of the crop: 256 to 224


@dataclass(frozen=True, slots=True)
class _SizeRecipe:
    """Hyper-parameters by model size: `rate` for batches of 1,024, `warmup` as a share of the epochs."""

    rate: float
    layer_decay: float
    stochastic_depth: float
    warmup: float


_BASE_RECIPE = _SizeRecipe(4e-3, 0.65, 0.1, 20 / 100)
_LARGE_RECIPE = _SizeRecipe(1e-3, 0.75, 0.2, 5 / 50)


@dataclass(frozen=True, slots=True)
class FinetunePlan:
    """Options of a fine-tuning; without `rate`, the recipe's is scaled with the batch."""

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
    def preprocessing(self) -> Preprocessing:
        return checkpoint_preprocessing(self.checkpoint.processor, self.image_size)

    @property
    def training_preprocessing(self) -> Preprocessing:
        """Whole images, a little larger than the crops."""
        preprocessing = self.preprocessing
        side = round(self._side * _KEPT_RATIO)
        return Preprocessing(
            (side, side), None, Resampling.BICUBIC, preprocessing.factor, preprocessing.mean, preprocessing.std
        )

    @property
    def _side(self) -> int:
        height, width = self.preprocessing.size
        if height != width:
            raise UsageError(f"`{self.checkpoint.name}` takes images of {height} × {width}", "add `image_size=`")
        return height

    def settings(self) -> Mapping[str, Any]:
        return finetune_settings(self, self.checkpoint)

    def method(self, classes: tuple[str, ...], runtime: Runtime, length: Length) -> Method:
        layers = self.checkpoint.config.get("num_hidden_layers", 12)
        size = _LARGE_RECIPE if layers >= _LARGE_LAYERS else _BASE_RECIPE
        rate = self.rate or size.rate * length.step_size / 1024
        network = adapted_network(self.checkpoint, classes, self._side, size.stochastic_depth, self.seed)
        if self.checkpoint_gradients:
            network.gradient_checkpointing_enable()
        optimizer = layer_wise_adamw(network.to(runtime.device), layers, rate, WEIGHT_DECAY, size.layer_decay)
        schedule = Schedule(round(size.warmup * length.steps), CLIP, AVERAGE_DECAY, self.accumulate)
        augment = FinetuneAugment(len(classes), self._side, self.preprocessing)
        description = self._description(size, rate, length.step_size)
        return Method(network, network.classifier, optimizer, augment, schedule, description)

    def _description(self, size: _SizeRecipe, rate: float, step_size: int) -> str:
        return (
            f"`{self.checkpoint.name}`, fine-tuned. {self.epochs} epochs in batches of "
            f"{step_size}: AdamW, peak rate {rate:g} after {size.warmup:.0%} of the steps, "
            f"then a cosine, layer-wise rate decay {size.layer_decay}; weight decay "
            f"{WEIGHT_DECAY}, stochastic depth {size.stochastic_depth}, mixup {ALPHAS[0]} or cutmix {ALPHAS[1]}, "
            f"label smoothing {SMOOTHING}, random crops and flips, colour jitter {JITTER}, random erasing {ERASED}; "
            f"averaged weights (decay up to {AVERAGE_DECAY})."
        )


def finetune_settings(plan: LabelledPlan, checkpoint: Checkpoint) -> Mapping[str, Any]:
    """All settings that determine the result of a fine-tuning of this checkpoint, by either recipe."""
    names = ("image_size", "epochs", "batch_size", "accumulate", "rate", "seed", "dtype")
    return {
        WAY: "--finetune",
        MODEL: base_model(checkpoint.name, checkpoint.content_digest()),
        **{name: getattr(plan, name) for name in names},
    }


def check_weights(checkpoint: Checkpoint, classes: tuple[str, ...]) -> None:
    """Raise ModelError where weights that a training for these classes begins with are unreadable or not finite."""
    kept = ("beit.", "classifier.") if classes == checkpoint.labels else "beit."
    for name, tensor in checkpoint.tensors().items():
        if name.startswith(kept) and not is_finite(tensor.float()):
            raise not_finite(name)


def adapted_network(
    checkpoint: Checkpoint, classes: tuple[str, ...], side: int, stochastic_depth: float, seed: int
) -> BeitForImageClassification:
    """The checkpoint's network for images of this side and these classes.

    Absolute positions are interpolated as at inference, relative ones as in the paper's code; a table that all layers
    share becomes one for each. The head is kept if the classes are the checkpoint's own; otherwise it is initialised
    with tiny random weights from the seed. Raises ModelError where weights are missing.
    """
    path = checkpoint.weight_file()
    with weight_errors(path):
        source, loading = BeitForImageClassification.from_pretrained(
            checkpoint.folder, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    missing = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    missing = [name for name in missing if not name.startswith(("classifier.", "beit.pooler."))]
    if missing:
        raise ModelError(f"`{checkpoint.name}` has no `{missing[0]}` of the shape that its config gives")
    config = copy.deepcopy(source.config)
    config.image_size, config.drop_path_rate = side, stochastic_depth
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.problem_type = None
    config.use_relative_position_bias |= config.use_shared_relative_position_bias
    config.use_shared_relative_position_bias = False
    torch.manual_seed(seed)
    network = BeitForImageClassification(config)
    state = resized_weights(expanded(source.state_dict(), config.num_hidden_layers), checkpoint, side)
    if classes != checkpoint.labels:
        nn.init.trunc_normal_(network.classifier.weight, std=HEAD_STD, a=-2 * HEAD_STD, b=2 * HEAD_STD)
        nn.init.zeros_(network.classifier.bias)
        state |= {name: value for name, value in network.state_dict().items() if name.startswith("classifier.")}
    network.load_state_dict(state)
    return network


def resized_weights(state: Mapping[str, Tensor], checkpoint: Checkpoint, side: int) -> dict[str, Tensor]:
    """The checkpoint's weights for images of this side: its positions interpolated, as `adapted_network` says."""
    trained, grid = trained_grid(checkpoint.config), (side // checkpoint.patch_side,) * 2
    resize = {"relative_position_bias_table": interpolated, "position_embeddings": resized_positions}
    return {
        name: resize[last](value, trained, grid) if (last := name.rpartition(".")[2]) in resize else value
        for name, value in state.items()
    }


@dataclass(frozen=True, slots=True)
class FinetuneAugment:
    """Random crops, flips, colour jitter and random erasing; mixup or cutmix of every batch."""

    classes: int
    side: int
    preprocessing: Preprocessing

    def __call__(self, pixels: Tensor, targets: Tensor, progress: float, generator: Generator) -> dict[str, Any]:  # noqa: ARG002
        images = cropped(pixels.float() / 255, self.side, SHARES, RATIOS, generator)
        images = jittered(images, JITTER, generator)
        normalised = (
            images * (255 * self.preprocessing.factor) - torch.tensor(self.preprocessing.mean)
        ) / torch.tensor(self.preprocessing.std)
        soft = smoothed(targets, self.classes, SMOOTHING)
        mixed_images, soft = mixed(erased(normalised, ERASED, generator), soft, ALPHAS, generator)
        return {"pixel_values": mixed_images.permute(0, 3, 1, 2).contiguous(), "targets": soft}
