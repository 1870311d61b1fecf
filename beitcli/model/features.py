"""Which features a picture has, and their shape: what is known of them before anything is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from beitcli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from beitcli.model.recipe import Recipe

Pool = Literal["mean", "cls", "patches"]


@dataclass(frozen=True, slots=True)
class Encoding:
    """Which of the final states, as `network.Output` has them; of length 1 if `normalized`, float16 if `half`."""

    pool: Pool
    normalized: bool = False
    half: bool = False

    @property
    def dtype(self) -> str:
        return "float16" if self.half else "float32"


def shape_of(checkpoint: Checkpoint, recipe: "Recipe", pool: Pool) -> tuple[int, ...]:
    """The shape of one picture's features: (hidden,), or (patches, hidden)."""
    hidden, patch = int(checkpoint.config.get("hidden_size", 768)), checkpoint.patch_side
    patches = (recipe.size[0] // patch) * (recipe.size[1] // patch)
    return (patches, hidden) if pool == "patches" else (hidden,)
