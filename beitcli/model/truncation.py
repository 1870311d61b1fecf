"""The first layers of a checkpoint, as a checkpoint: features from its middle."""

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from beitcli.errors import UsageError
from beitcli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

MEAN_NORM, STATE_NORM = "beit.pooler.layernorm.", "beit.layernorm."
"""Names of the final layer norm in transformers: on the mean of the patch states, or on all states."""


_BY_LAYER = ("out_features", "out_indices", "stage_names")
"""Keys of a config that name layers, for networks that use a BEiT as their backbone."""


@dataclass(frozen=True, slots=True)
class RenormedCheckpoint(Checkpoint):
    """A checkpoint with another final layer norm: `norm` holds its weights, in place of the files' or besides."""

    norm: "Mapping[str, Tensor]" = field(kw_only=True)

    def tensors(self) -> "Mapping[str, Tensor]":
        return ChainMap(dict(self.norm), Checkpoint.tensors(self))  # type: ignore[arg-type]  # it is only read


def truncated(checkpoint: Checkpoint, layer: int) -> Checkpoint:
    """The checkpoint up to this layer, from 1; its states in the middle are only standardised.

    The last layer is the checkpoint itself. Raises UsageError for a layer that it does not have.
    """
    if layer == check_layer(checkpoint, layer):
        return checkpoint
    norm = {**plain_norm(checkpoint, MEAN_NORM), **plain_norm(checkpoint, STATE_NORM)}
    return RenormedCheckpoint(**changed(checkpoint, layer), norm=norm)


def check_layer(checkpoint: Checkpoint, layer: int) -> int:
    """The number of layers. Raises UsageError for a layer that the checkpoint does not have."""
    layers = int(checkpoint.config.get("num_hidden_layers", 12))
    if not 1 <= layer <= layers:
        raise UsageError(f"`layer={layer}`: `{checkpoint.name}` has {layers} layers", f"a number from 1 to {layers}")
    return layers


def plain_norm(checkpoint: Checkpoint, name: str) -> "dict[str, Tensor]":
    """Weights of a layer norm that only standardises."""
    import torch

    width = int(checkpoint.config.get("hidden_size", 768))
    return {name + "weight": torch.ones(width), name + "bias": torch.zeros(width)}


def changed(checkpoint: Checkpoint, layers: int | None, **config: Any) -> dict[str, Any]:
    """The fields of the checkpoint, with so many layers, if given, and these changes to its config."""
    known = {each.name: getattr(checkpoint, each.name) for each in fields(Checkpoint)}
    kept = dict(checkpoint.config)
    if layers is not None:
        kept = {key: value for key, value in kept.items() if key not in _BY_LAYER} | {"num_hidden_layers": layers}
    return known | {"config": {**kept, **config}}
