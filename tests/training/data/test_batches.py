"""Assignment of examples to batches."""

import pytest
import torch

from beitcli.training.data.batches import Order


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
