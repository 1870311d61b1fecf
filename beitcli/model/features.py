"""Kinds of features and their shapes, known before anything is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from beitcli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing

Pool = Literal["mean", "cls", "patches"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """A choice of final states, as in `network.Output`; of length 1 if `normalized`, float16 if `half`."""

    pool: Pool
    normalized: bool = False
    half: bool = False

    @property
    def dtype(self) -> str:
        return "float16" if self.half else "float32"


def shape_of(checkpoint: Checkpoint, preprocessing: "Preprocessing", pool: Pool) -> tuple[int, ...]:
    """The shape of one image's features: (hidden,), or (patches, hidden)."""
    hidden, patch = int(checkpoint.config.get("hidden_size", 768)), checkpoint.patch_side
    patches = (preprocessing.size[0] // patch) * (preprocessing.size[1] // patch)
    return (patches, hidden) if pool == "patches" else (hidden,)
