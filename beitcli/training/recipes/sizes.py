"""Model sizes for training from random weights."""

from dataclasses import dataclass

NARROW = 512
"""Width below which networks have the recipe for small ones."""


@dataclass(frozen=True, slots=True)
class ScratchShape:
    """Width, depth and heads of a BEiT; its feed-forward layers are four times as wide."""

    hidden: int
    layers: int
    heads: int

    @property
    def is_narrow(self) -> bool:
        """True for a network of the sizes for small images, which have a recipe of their own."""
        return self.hidden < NARROW


SCRATCH_SHAPES = {"tiny": ScratchShape(128, 6, 2), "small": ScratchShape(256, 8, 4)}
"""`small` is that of the bundled demonstration model; `tiny` takes a fifth of its arithmetic."""
