"""A checkpoint whose final states are pooled as a probe is asked to, and the folder that it becomes."""

import json
import os
import shutil
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from beitcli.model.checkpoint import Checkpoint
from beitcli.model.recipe import Recipe
from beitcli.training.processor import processor_of
from beitcli.training.regression import Layer
from beitcli.training.workplace import work_errors

ProbePool = Literal["mean", "cls"]

_NORMS = {"mean": "beit.pooler.layernorm.", "cls": "beit.layernorm."}
"""Where transformers has the final layer norm: on the mean of the patch states, or on all states."""


@dataclass(frozen=True, slots=True)
class PooledCheckpoint(Checkpoint):
    """A checkpoint with another config; `norm` has the weights that it lacks for that."""

    norm: Mapping[str, Tensor]

    @property
    def pool(self) -> ProbePool:
        return "mean" if self.config["use_mean_pooling"] else "cls"

    def tensors(self) -> Mapping[str, Tensor]:
        return ChainMap(dict(self.norm), Checkpoint.tensors(self))  # type: ignore[arg-type]  # which is only read


def pooled(checkpoint: Checkpoint, pool: ProbePool) -> PooledCheckpoint:
    """The checkpoint that classifies by these states, behind its own final layer norm if it has one for them.

    Else the norm has a gain of 1 and no shift: it only brings the states to one scale.
    """
    has_own = checkpoint.config.get("use_mean_pooling", True) == (pool == "mean")
    name, width = _NORMS[pool], int(checkpoint.config.get("hidden_size", 768))
    plain = {name + "weight": torch.ones(width), name + "bias": torch.zeros(width)}
    return PooledCheckpoint(
        name=checkpoint.name,
        repository=checkpoint.repository,
        folder=checkpoint.folder,
        config={**checkpoint.config, "use_mean_pooling": pool == "mean"},
        processor=checkpoint.processor,
        labels=checkpoint.labels,
        norm={} if has_own and name + "weight" in checkpoint.tensors() else plain,
    )


def save(checkpoint: PooledCheckpoint, layer: Layer, classes: Sequence[str], recipe: Recipe, folder: str) -> None:
    """Writes the checkpoint with that classifier: its weights as they are, from disk to disk, and the layer in float32.

    Raises OutputError.
    """
    path = os.path.join(folder, "model.safetensors")
    with work_errors():
        shutil.rmtree(folder, ignore_errors=True)  # half of one, where an earlier run was killed
        os.makedirs(folder)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(_config(checkpoint.config, classes), stream, indent=2, sort_keys=True)
        processor_of(recipe).save_pretrained(folder)
        classifier = {
            "classifier.weight": torch.from_numpy(layer.weight),
            "classifier.bias": torch.from_numpy(layer.bias),
        }
        save_file({**_encoder(checkpoint), **classifier}, path, metadata={"format": "pt"})
        shutil.copymode(os.path.join(folder, "config.json"), path)  # safetensors lets nobody else read it


def _config(config: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    of_another = ("id2label", "label2id", "num_labels", "problem_type", "architectures", "torch_dtype")
    return {
        **{key: value for key, value in config.items() if key not in of_another},
        "dtype": "float32",  # whatever the encoder's weights are kept in: transformers would compute in that
        "architectures": ["BeitForImageClassification"],
        "id2label": {str(number): name for number, name in enumerate(classes)},
        "label2id": {name: number for number, name in enumerate(classes)},
    }


def _encoder(checkpoint: PooledCheckpoint) -> dict[str, Tensor]:
    """What comes before the classifier, mapped from disk: no heads for other ends, nor the norm of the other pool."""
    tensors = checkpoint.tensors()
    other = _NORMS["cls" if checkpoint.pool == "mean" else "mean"]
    kept = (name for name in tensors if name.startswith("beit.") and not name.startswith(other))
    return {name: tensors[name].contiguous() for name in kept if not name.endswith("relative_position_index")}
