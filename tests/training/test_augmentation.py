"""Pictures changed at random: what stays, what is drawn, and that the generator decides all of it."""

import pytest
import torch

from beitcli.training.augmentation import cropped, erased, jittered, mixed, shifted_and_flipped, smoothed
from beitcli.training.batches import seeded

PICTURES = torch.rand(64, 16, 16, 3, generator=torch.Generator().manual_seed(0))

CHANGES = {
    "shifted": lambda generator: shifted_and_flipped(PICTURES, 2, generator),
    "jittered": lambda generator: jittered(PICTURES, 0.4, generator),
    "cropped": lambda generator: cropped(PICTURES, 16, (0.08, 1.0), (3 / 4, 4 / 3), generator),
    "erased": lambda generator: erased(PICTURES, 0.5, generator),
    "mixed": lambda generator: mixed(PICTURES, torch.rand(64, 5, generator=generator), (0.8, 1.0), generator)[0],
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_generator_decides_everything(name: str) -> None:
    before = PICTURES.clone()
    first, again, other = (CHANGES[name](seeded(seed)) for seed in (1, 1, 2))
    assert first.shape == PICTURES.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(PICTURES, before)


def test_without_a_margin_a_picture_is_itself_or_flipped() -> None:
    result = shifted_and_flipped(PICTURES, 0, seeded(0))
    same = (result == PICTURES).all((1, 2, 3))
    flipped = (result == PICTURES.flip(2)).all((1, 2, 3))
    assert (same ^ flipped).all()
    assert 16 < same.sum() < 48


def test_a_gap_is_filled_with_the_mirrored_edge() -> None:
    ramp = torch.arange(16.0).expand(64, 16, 16)[..., None].expand(-1, -1, -1, 3)
    result = shifted_and_flipped(ramp, 3, seeded(0))[:, 0, :, 0]
    assert (result.diff().abs() == 1).all()


def test_the_whole_picture_is_a_crop() -> None:
    result = cropped(PICTURES, 16, (1.0, 1.0), (1.0, 1.0), seeded(0))
    expected = torch.minimum(
        (result - PICTURES).abs().amax((1, 2, 3)), (result - PICTURES.flip(2)).abs().amax((1, 2, 3))
    )
    assert expected.max() < 1e-5


def test_blended_targets_are_shares_and_follow_the_pictures() -> None:
    """Black and white pictures: the mean of each is the share of its class."""
    numbers = torch.arange(64) % 2
    pictures = numbers.float()[:, None, None, None].expand(-1, 16, 16, 3)
    for seed in range(20):
        blended, shares = mixed(pictures, smoothed(numbers, 2, 0.0), (0.8, 1.0), seeded(seed))
        assert torch.allclose(shares.sum(1), torch.ones(64))
        assert torch.allclose(blended.mean((1, 2, 3)), shares[:, 1], atol=1e-5)


def test_smoothed_targets() -> None:
    assert torch.allclose(smoothed(torch.tensor([1]), 4, 0.1), torch.tensor([[0.025, 0.925, 0.025, 0.025]]))


def test_as_many_are_erased_as_asked_for() -> None:
    changed = (erased(PICTURES, 0.25, seeded(0)) != PICTURES).any(-1).flatten(1).float().mean(1)
    assert 6 < (changed > 0).sum() < 28
    assert changed.max() <= 0.4
