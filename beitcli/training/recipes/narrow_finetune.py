"""Fine-tuning of a small BEiT that is pre-trained only, by the recipe of a training from scratch.

The paper's recipe is for wide networks: at the same passes over few labelled images it leaves a small one far behind a
training from scratch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beitcli.model.checkpoint import Checkpoint
from beitcli.model.preprocessing import Preprocessing, checkpoint_preprocessing
from beitcli.model.runtime import Runtime
from beitcli.training.recipes.finetune import adapted_network, finetune_settings
from beitcli.training.recipes.patch_dropout import DroppingBeit
from beitcli.training.recipes.recipe import Length, Method
from beitcli.training.recipes.scratch import RATE, STOCHASTIC_DEPTH, describe_recipe, scratch_method
from beitcli.training.recipes.sizes import NARROW


def is_narrow_encoder(checkpoint: Checkpoint) -> bool:
    """True for a checkpoint that this recipe suits: narrow, pre-trained only, normalised and built as ours are."""
    config, processor = checkpoint.config, checkpoint.processor
    if not checkpoint.is_pretrained_only or config.get("hidden_size", 768) >= NARROW or not processor:
        return False
    preprocessing = checkpoint_preprocessing(processor, None)
    plain = preprocessing.mean == preprocessing.std == (0.5,) * 3 and preprocessing.factor == 1 / 255
    return plain and config.get("use_mean_pooling", True) and not config.get("use_absolute_position_embeddings", False)


@dataclass(frozen=True, slots=True)
class NarrowFinetunePlan:
    """Options of such a fine-tuning; without `rate`, the recipe's."""

    checkpoint: Checkpoint
    image_size: int | None
    epochs: int
    batch_size: int
    accumulate: int
    rate: float | None
    seed: int
    dtype: str

    @property
    def preprocessing(self) -> Preprocessing:
        return checkpoint_preprocessing(self.checkpoint.processor, self.image_size)

    @property
    def training_preprocessing(self) -> Preprocessing:
        return self.preprocessing

    def settings(self) -> Mapping[str, Any]:
        return finetune_settings(self, self.checkpoint)

    def method(self, classes: tuple[str, ...], runtime: Runtime, length: Length) -> Method:
        side = self.preprocessing.size[0]
        adapted = adapted_network(self.checkpoint, classes, side, STOCHASTIC_DEPTH, self.seed)
        network = DroppingBeit(adapted.config)
        network.load_state_dict(adapted.state_dict())
        rate = self.rate or RATE
        begun = f"`{self.checkpoint.name}`, fine-tuned at {side} pixels. {self.epochs} epochs"
        description = f"{begun}, {describe_recipe(rate, length)}"
        return scratch_method(network, classes, rate, self.accumulate, runtime, length, description)
