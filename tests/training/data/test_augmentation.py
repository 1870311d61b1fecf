"""Random augmentation: invariants, and reproducibility from the generator."""

import pytest
import torch

from beitcli.training.data.augmentation import cropped, erased, jittered, mixed, shifted_and_flipped, smoothed
from beitcli.training.data.batches import seeded

IMAGES = torch.rand(64, 16, 16, 3, generator=torch.Generator().manual_seed(0))

AUGMENTATIONS = {
    "shifted": lambda generator: shifted_and_flipped(IMAGES, 2, generator),
    "jittered": lambda generator: jittered(IMAGES, 0.4, generator),
    "cropped": lambda generator: cropped(IMAGES, 16, (0.08, 1.0), (3 / 4, 4 / 3), generator),
    "erased": lambda generator: erased(IMAGES, 0.5, generator),
    "mixed": lambda generator: mixed(IMAGES, torch.rand(64, 5, generator=generator), (0.8, 1.0), generator)[0],
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_is_reproducible_from_the_generator(name: str) -> None:
    before = IMAGES.clone()
    first, again, other = (AUGMENTATIONS[name](seeded(seed)) for seed in (1, 1, 2))
    assert first.shape == IMAGES.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(IMAGES, before)


def test_without_a_margin_an_image_is_unchanged_or_flipped() -> None:
    result = shifted_and_flipped(IMAGES, 0, seeded(0))
    same = (result == IMAGES).all((1, 2, 3))
    flipped = (result == IMAGES.flip(2)).all((1, 2, 3))
    assert (same ^ flipped).all()
    assert 16 < same.sum() < 48


def test_a_gap_is_filled_with_the_mirrored_edge() -> None:
    ramp = torch.arange(16.0).expand(64, 16, 16)[..., None].expand(-1, -1, -1, 3)
    result = shifted_and_flipped(ramp, 3, seeded(0))[:, 0, :, 0]
    assert (result.diff().abs() == 1).all()


def test_the_whole_image_is_a_crop() -> None:
    result = cropped(IMAGES, 16, (1.0, 1.0), (1.0, 1.0), seeded(0))
    expected = torch.minimum((result - IMAGES).abs().amax((1, 2, 3)), (result - IMAGES.flip(2)).abs().amax((1, 2, 3)))
    assert expected.max() < 1e-5


def test_mixed_targets_are_shares_of_the_images() -> None:
    """Black and white images: the mean of each is the share of its class."""
    numbers = torch.arange(64) % 2
    images = numbers.float()[:, None, None, None].expand(-1, 16, 16, 3)
    for seed in range(20):
        mixed_images, shares = mixed(images, smoothed(numbers, 2, 0.0), (0.8, 1.0), seeded(seed))
        assert torch.allclose(shares.sum(1), torch.ones(64))
        assert torch.allclose(mixed_images.mean((1, 2, 3)), shares[:, 1], atol=1e-5)


def test_smoothed_targets() -> None:
    assert torch.allclose(smoothed(torch.tensor([1]), 4, 0.1), torch.tensor([[0.025, 0.925, 0.025, 0.025]]))


def test_the_requested_share_is_erased() -> None:
    changed = (erased(IMAGES, 0.25, seeded(0)) != IMAGES).any(-1).flatten(1).float().mean(1)
    assert 6 < (changed > 0).sum() < 28
    assert changed.max() <= 0.4
