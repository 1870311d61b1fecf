"""Assignment of examples to batches."""

import pytest
import torch
from PIL.Image import Resampling

from beitcli.model.preprocessing import Preprocessing
from beitcli.training.data.batches import Augment, Batches, Order
from beitcli.training.pretraining.masked_batches import MaskedAugment
from beitcli.training.pretraining.masks import PAPER_SHARE, masking_for
from beitcli.training.pretraining.views import ShiftedViews
from beitcli.training.recipes.finetune import FinetuneAugment
from beitcli.training.recipes.scratch import ScratchAugment


@pytest.mark.parametrize(
    ("count", "batch_size", "epochs"), [(10, 4, 2), (40, 32, 5), (63, 32, 4), (3, 8, 2), (7, 7, 1)]
)
def test_every_example_appears_once_in_every_epoch(count: int, batch_size: int, epochs: int) -> None:
    order = Order(count, batch_size, epochs, seed=3)
    batches = [order.of(number) for number in range(len(order))]
    assert {len(batch) for batch in batches} == {min(batch_size, count)}
    chosen = torch.cat(batches)
    for epoch in range(epochs):
        assert sorted(chosen[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))
    assert len(chosen) - epochs * count < min(batch_size, count)


def test_the_order_depends_on_seed_and_epoch() -> None:
    first, second = (torch.cat([Order(50, 10, 2, seed).of(number) for number in range(10)]) for seed in (1, 2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[:50], first[50:])
    assert torch.equal(first[30:40], Order(50, 10, 2, 1).of(3))


PREPROCESSING = Preprocessing((32, 32), None, Resampling.BILINEAR, 1 / 255, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    "augment",
    [
        ScratchAugment(10),
        FinetuneAugment(10, 32, PREPROCESSING),
        MaskedAugment(ShiftedViews(32, 64), masking_for((8, 8), PAPER_SHARE), PREPROCESSING),
    ],
    ids=["labelled", "fine-tuning", "two views and masks"],
)
def test_the_bytes_of_a_batch_are_those_of_all_its_tensors(augment: Augment) -> None:
    pixels = torch.randint(0, 256, (12, 32, 32, 3), dtype=torch.uint8)
    batches = Batches(pixels, torch.arange(12) % 10, augment, Order(12, 5, 3, seed=1))
    assert batches.batch_bytes() == sum(value.nbytes for value in batches[4].values() if torch.is_tensor(value))
