"""Masks are those of the paper's code, and fit other grids."""

import random

import numpy as np
import pytest
from transformers.models.flava.image_processing_pil_flava import FlavaMaskingGenerator

from beitcli.training.pretraining.masks import PAPER_SHARE, masking_for


def test_masks_of_the_papers_grid_are_those_of_its_code() -> None:
    masking, reference = masking_for((14, 14), PAPER_SHARE), FlavaMaskingGenerator()
    assert (masking.most, masking.least) == (75, 16)
    masks = [masking.draw(random.Random(seed)) for seed in range(500)]
    for seed, mask in enumerate(masks):
        random.seed(seed)
        assert np.array_equal(mask, reference().numpy().astype(bool)), seed
    counts = np.array([mask.sum() for mask in masks])
    assert counts.max() == 75 and 74 < counts.mean() < 75


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (2, 2), (4, 4), (8, 8), (3, 20)])
def test_every_grid_has_masked_patches_and_others(grid: tuple[int, int]) -> None:
    masking = masking_for(grid, PAPER_SHARE)
    masks = masking.batch(50, random.Random(0))
    assert masks.shape == (50, grid[0] * grid[1])
    counts = masks.sum(1)
    assert counts.min() >= 1 and counts.max() <= masking.most
