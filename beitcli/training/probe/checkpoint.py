"""A checkpoint with the requested pooling of its final states, and the folder it is saved to."""

import json
import os
import shutil
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from beitcli.model.checkpoint import Checkpoint
from beitcli.model.preprocessing import Preprocessing
from beitcli.training.probe.regression import LinearLayer
from beitcli.training.processor import processor_of
from beitcli.training.work_dir import work_errors

ProbePool = Literal["mean", "cls"]

_NORMS = {"mean": "beit.pooler.layernorm.", "cls": "beit.layernorm."}
"""Names of the final layer norm in transformers: on the mean of the patch states, or on all states."""


@dataclass(frozen=True, slots=True)
class PooledCheckpoint(Checkpoint):
    """A checkpoint with another pooling; `norm` holds the weights it lacks for that."""

    norm: Mapping[str, Tensor] = field(kw_only=True)

    @property
    def pool(self) -> ProbePool:
        return "mean" if self.config["use_mean_pooling"] else "cls"

    def tensors(self) -> Mapping[str, Tensor]:
        return ChainMap(dict(self.norm), Checkpoint.tensors(self))  # type: ignore[arg-type]  # it is only read


def pooled(checkpoint: Checkpoint, pool: ProbePool) -> PooledCheckpoint:
    """The checkpoint with this pooling, followed by its own final layer norm if it has one for it.

    Otherwise the norm has weight 1 and bias 0, and only standardises the states.
    """
    has_own = checkpoint.config.get("use_mean_pooling", True) == (pool == "mean")
    name, width = _NORMS[pool], int(checkpoint.config.get("hidden_size", 768))
    identity = {name + "weight": torch.ones(width), name + "bias": torch.zeros(width)}
    return PooledCheckpoint(
        name=checkpoint.name,
        repository=checkpoint.repository,
        folder=checkpoint.folder,
        config={**checkpoint.config, "use_mean_pooling": pool == "mean"},
        processor=checkpoint.processor,
        labels=checkpoint.labels,
        processor_file=checkpoint.processor_file,
        norm={} if has_own and name + "weight" in checkpoint.tensors() else identity,
    )


def save(
    checkpoint: PooledCheckpoint, layer: LinearLayer, classes: Sequence[str], preprocessing: Preprocessing, folder: str
) -> None:
    """Writes the checkpoint with this classifier: encoder weights unchanged, from disk to disk, the layer in float32.

    Raises OutputError.
    """
    path = os.path.join(folder, "model.safetensors")
    with work_errors():
        shutil.rmtree(folder, ignore_errors=True)  # incomplete, if an earlier run was killed
        os.makedirs(folder)
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(_config(checkpoint.config, classes), stream, indent=2, sort_keys=True)
        processor_of(preprocessing).save_pretrained(folder)
        classifier = {
            "classifier.weight": torch.from_numpy(layer.weight),
            "classifier.bias": torch.from_numpy(layer.bias),
        }
        save_file({**_encoder(checkpoint), **classifier}, path, metadata={"format": "pt"})
        shutil.copymode(os.path.join(folder, "config.json"), path)  # safetensors lets only the owner read it


def _config(config: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    replaced = ("id2label", "label2id", "num_labels", "problem_type", "architectures", "torch_dtype")
    return {
        **{key: value for key, value in config.items() if key not in replaced},
        "dtype": "float32",  # transformers would compute in the dtype of the encoder's weights
        "architectures": ["BeitForImageClassification"],
        "id2label": {str(number): name for number, name in enumerate(classes)},
        "label2id": {name: number for number, name in enumerate(classes)},
    }


def _encoder(checkpoint: PooledCheckpoint) -> dict[str, Tensor]:
    """The encoder's weights, mapped from disk, without other heads and the norm of the other pooling."""
    tensors = checkpoint.tensors()
    other = _NORMS["cls" if checkpoint.pool == "mean" else "mean"]
    kept = (name for name in tensors if name.startswith("beit.") and not name.startswith(other))
    return {name: tensors[name].contiguous() for name in kept if not name.endswith("relative_position_index")}
