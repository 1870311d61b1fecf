"""Model shapes for the benchmark, and the arithmetic of one image in each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """A BEiT's dimensions; `pixels` is the side of its square images, `patch` that of a patch."""

    name: str
    pixels: int
    hidden: int
    layers: int
    heads: int
    patch: int = 16
    labels: int = 1000

    @property
    def intermediate(self) -> int:
        return 4 * self.hidden

    @property
    def patches(self) -> int:
        return (self.pixels // self.patch) ** 2

    @property
    def tokens(self) -> int:
        return self.patches + 1

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of the linear maps of one layer: q, k and v together, attention's output, up, down."""
        hidden, intermediate = self.hidden, self.intermediate
        return (3 * hidden, hidden), (hidden, hidden), (intermediate, hidden), (hidden, intermediate)

    @property
    def linear_gflop(self) -> float:
        """Arithmetic of one image in the linear maps of one layer."""
        return 2e-9 * self.tokens * sum(outputs * inputs for outputs, inputs in self.linears)

    @property
    def gflop(self) -> float:
        """Arithmetic of one image: linear maps, attention, patch projection and head, two for a multiply and add."""
        attention = 2e-9 * 2 * self.tokens**2 * self.hidden
        patches = 2e-9 * self.patches * 3 * self.patch**2 * self.hidden
        return self.layers * (self.linear_gflop + attention) + patches + 2e-9 * self.hidden * self.labels


PUBLISHED = {
    shape.name: shape
    for shape in (
        Shape("base-224", 224, 768, 12, 12),
        Shape("base-384", 384, 768, 12, 12),
        Shape("large-384", 384, 1024, 24, 16),
    )
}
"""Shapes of published checkpoints, by their alias."""

TINY = Shape("tiny", 32, 32, 2, 2, patch=8)
"""For tests only: too small to measure a machine."""
