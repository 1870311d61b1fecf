"""A checkpoint with the requested pooling of its final states, and the folder it is saved to."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from beitcli.file_system import share_mode
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.truncation import MEAN_NORM, STATE_NORM, RenormedCheckpoint, changed, check_layer, plain_norm
from beitcli.training.probe.regression import LinearLayer
from beitcli.training.processor import processor_of
from beitcli.training.work_dir import work_errors

ProbePool = Literal["mean", "cls"]

_NORMS = {"mean": MEAN_NORM, "cls": STATE_NORM}


@dataclass(frozen=True, slots=True)
class PooledCheckpoint(RenormedCheckpoint):
    """A checkpoint with another pooling; `norm` holds the weights it lacks for that."""

    @property
    def pool(self) -> ProbePool:
        return "mean" if self.config["use_mean_pooling"] else "cls"

    @property
    def layers(self) -> int:
        """The number of layers."""
        return int(self.config.get("num_hidden_layers", 12))


def pooled(checkpoint: Checkpoint, pool: ProbePool, layer: int | None = None) -> PooledCheckpoint:
    """The checkpoint with this pooling, followed by its own final layer norm if it has one for it.

    Otherwise, and where it is cut behind a `layer` that is not its last, the norm has weight 1 and bias 0, and only
    standardises the states. Raises UsageError for a layer that it does not have.
    """
    layers = checkpoint.config.get("num_hidden_layers", 12) if layer is None else check_layer(checkpoint, layer)
    is_whole = layer in (None, layers)
    has_own = is_whole and checkpoint.config.get("use_mean_pooling", True) == (pool == "mean")
    name = _NORMS[pool]
    return PooledCheckpoint(
        **changed(checkpoint, None if is_whole else layer, use_mean_pooling=pool == "mean"),
        norm={} if has_own and name + "weight" in checkpoint.tensors() else plain_norm(checkpoint, name),
    )


def save(
    checkpoint: PooledCheckpoint, layer: LinearLayer, classes: Sequence[str], preprocessing: Preprocessing, folder: str
) -> None:
    """Write the checkpoint with this classifier: encoder weights unchanged, from disk to disk, the layer in float32.

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
        share_mode(path, os.path.join(folder, "config.json"))  # safetensors lets only the owner read it


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
    """The encoder's weights, mapped from disk, without other heads, layers above and the norm of the other pooling."""
    tensors = checkpoint.tensors()
    other = _NORMS["cls" if checkpoint.pool == "mean" else "mean"]
    above = tuple(f"beit.encoder.layer.{number}." for number in _layers_above(tensors, checkpoint.layers))
    kept = (name for name in tensors if name.startswith("beit.") and not name.startswith((other, *above)))
    return {name: tensors[name].contiguous() for name in kept if not name.endswith("relative_position_index")}


def _layers_above(tensors: Mapping[str, Tensor], layers: int) -> set[int]:
    """Numbers, from 0, of the layers among the tensors that are not among the first ones."""
    found = (name.split(".")[3] for name in tensors if name.startswith("beit.encoder.layer."))
    return {number for number in map(int, found) if number >= layers}
