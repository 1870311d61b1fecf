"""The sizes of model that are trained from random weights."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScratchShape:
    """How wide and deep a BEiT is; its feed-forward parts are four times as wide."""

    hidden: int
    layers: int
    heads: int


SCRATCH_SHAPES = {"tiny": ScratchShape(128, 6, 2), "small": ScratchShape(256, 8, 4)}
"""`small` is the bundled demonstration model's; `tiny` takes a fifth of its arithmetic."""
