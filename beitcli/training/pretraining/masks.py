"""Block-wise masks of patches, as the paper draws them (arXiv:2106.08254, algorithm 1)."""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

PAPER_SHARE = 75 / 196
"""Share of the patches that is masked at most: 75 of 14 × 14."""

_LEAST_SHARE = 16 / 196
_LEAST_RATIO = 0.3
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Masking:
    """Masks for a grid of rows and columns: at most `most` patches, in blocks of `least` or more."""

    grid: tuple[int, int]
    most: int
    least: int

    def draw(self, rng: Random) -> np.ndarray:
        """A mask (rows, columns) of bool with one patch or more.

        The draws are those of `masking_generator.py` in the paper's code (unilm/beit), whose masks these are: blocks
        are added until `most` patches are masked, or until none of ten fits.
        """
        mask = np.zeros(self.grid, bool)
        left = self.most
        while left > 0 and (added := self._add_block(mask, left, rng)):
            left -= added
        if left == self.most:  # a grid of few patches, in which no block fits
            mask.flat[rng.randrange(mask.size)] = True
        return mask

    def batch(self, count: int, rng: Random) -> Tensor:
        """Masks (count, patches) of bool."""
        return torch.from_numpy(np.stack([self.draw(rng) for _ in range(count)])).flatten(1)

    def _add_block(self, mask: np.ndarray, most: int, rng: Random) -> int:
        """Add a block with 1 to `most` patches that are not masked yet; the number of those, or 0."""
        rows, columns = self.grid
        for _ in range(_TRIES):
            area = rng.uniform(self.least, most)
            ratio = math.exp(rng.uniform(math.log(_LEAST_RATIO), -math.log(_LEAST_RATIO)))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if width >= columns or height >= rows:
                continue
            top, left = rng.randint(0, rows - height), rng.randint(0, columns - width)
            block = mask[top : top + height, left : left + width]
            added = block.size - int(np.count_nonzero(block))
            if 0 < added <= most:
                block[:] = True
                return added
        return 0


def masking_for(grid: tuple[int, int], share: float) -> Masking:
    """The masking of this share of a grid's patches, the least block scaled with the grid: 16 of 14 × 14."""
    patches = grid[0] * grid[1]
    return Masking(grid, max(1, round(share * patches)), max(1, round(_LEAST_SHARE * patches)))
