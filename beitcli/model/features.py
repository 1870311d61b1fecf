"""Kinds of features and their shapes, known before anything is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from beitcli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing

Pool = Literal["mean", "cls", "patches"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """A choice of final states, as in `network.Output`; of length 1 if `normalized`, float16 if `half`.

    With a `layer`, from 1, states of that one in place of the last, or of every one.
    """

    pool: Pool
    normalized: bool = False
    half: bool = False
    layer: int | Literal["all"] | None = None

    @property
    def dtype(self) -> str:
        return "float16" if self.half else "float32"


def shape_of(checkpoint: Checkpoint, preprocessing: "Preprocessing", kind: Encoding) -> tuple[int, ...]:
    """The shape of one image's features: (hidden,), (patches, hidden), or (layers, hidden) for all layers."""
    hidden, patch = int(checkpoint.config.get("hidden_size", 768)), checkpoint.patch_side
    patches = (preprocessing.size[0] // patch) * (preprocessing.size[1] // patch)
    if kind.layer == "all":
        return int(checkpoint.config.get("num_hidden_layers", 12)), hidden
    return (patches, hidden) if kind.pool == "patches" else (hidden,)
