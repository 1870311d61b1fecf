"""Relative position bias of fine-tuned models, against the paper's code written down again."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BeitConfig, BeitForImageClassification

from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.network import resized_table
from beitcli.training.processor import processor_of
from beitcli.training.recipes.finetune import adapted_network
from beitcli.training.recipes.position_bias import interpolated
from tests.training.recipes.test_networks import PLAN, without_stochastic_depth


def port(table: np.ndarray, trained: int, side: int) -> np.ndarray:
    """The interpolation in `run_class_finetuning.py` of unilm/beit, by its splines' equations."""
    old, new = 2 * trained - 1, 2 * side - 1
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        ratio = (left + right) / 2.0
        if (1.0 - ratio ** (old // 2)) / (1.0 - ratio) > new // 2:
            right = ratio
        else:
            left = ratio
    reached, current = [], 1.0
    for power in range(old // 2):
        reached.append(current)
        current += ratio ** (power + 1)
    x = np.array([-distance for distance in reversed(reached)] + [0.0] + reached)
    half = new // 2.0
    wanted = np.arange(-half, half + 0.1, 1.0)
    heads = []
    for head in range(table.shape[1]):
        plane = table[:-3, head].astype(float).reshape(old, old)
        rows = np.stack([cubic(x, row, wanted) for row in plane])
        heads.append(np.stack([cubic(x, column, wanted) for column in rows.T], axis=1).reshape(-1))
    return np.concatenate((np.stack(heads, axis=1), table[-3:]))


def cubic(x: np.ndarray, y: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Cubic spline through (x, y) whose third derivative has no jump at the second and the last knot but one.

    Its second derivatives solve the usual equations of continuous slopes; outside of x the value at its end.
    """
    step, count = np.diff(x), len(x)
    slopes = np.diff(y) / step
    equations, right = np.zeros((count, count)), np.zeros(count)
    equations[0, :3] = step[1], -(step[0] + step[1]), step[0]
    equations[-1, -3:] = step[-1], -(step[-2] + step[-1]), step[-2]
    for i in range(1, count - 1):
        equations[i, i - 1 : i + 2] = step[i - 1], 2 * (step[i - 1] + step[i]), step[i]
        right[i] = 6 * (slopes[i] - slopes[i - 1])
    bend = np.linalg.solve(equations, right)
    at = np.clip(wanted, x[0], x[-1])
    i = np.clip(np.searchsorted(x, at, "right") - 1, 0, count - 2)
    before, after, width = at - x[i], x[i + 1] - at, step[i]
    return (
        (bend[i] * after**3 + bend[i + 1] * before**3) / (6 * width)
        + (y[i] / width - bend[i] * width / 6) * after
        + (y[i + 1] / width - bend[i + 1] * width / 6) * before
    )


@pytest.mark.parametrize(("trained", "side"), [(14, 16), (14, 24), (14, 32), (24, 14)])
def test_the_table_is_interpolated_as_in_the_papers_code(trained: int, side: int) -> None:
    table = torch.randn((2 * trained - 1) ** 2 + 3, 2, generator=torch.Generator().manual_seed(side))
    ours = interpolated(table, (trained, trained), (side, side))
    assert ours.dtype == table.dtype
    assert np.abs(ours.numpy() - port(table.numpy(), trained, side)).max() < 1e-5


def test_neighbours_keep_their_bias() -> None:
    """A bias of 3 that halves within 1.4 patches, seen by the next patch: 1.82, which a linear stretch makes 2.32."""
    distance = torch.arange(-13.0, 14).abs()
    table = torch.cat(
        (3 * torch.exp(-torch.maximum(distance[:, None], distance) / 2).reshape(-1, 1), torch.zeros(3, 1))
    )
    neighbour = 23 * 47 + 24
    assert interpolated(table, (14, 14), (24, 24))[neighbour].item() == pytest.approx(3 * math.exp(-0.5))
    assert resized_table(table, (14, 14), (24, 24))[neighbour].item() == pytest.approx(2.32, abs=0.01)


@pytest.mark.parametrize("trained", [(1, 1), (2, 2), (2, 3)])
def test_grids_of_few_patches_are_interpolated_too(trained: tuple[int, int]) -> None:
    rows, columns = (2 * side - 1 for side in trained)
    table = torch.arange(rows * columns + 3.0)[:, None]
    ours = interpolated(table, trained, (4, 4))
    assert ours.shape == (52, 1) and ours[24] == table[rows * columns // 2] and torch.equal(ours[-3:], table[-3:])


@pytest.mark.parametrize("also_own", [False, True])
def test_a_shared_table_is_expanded_to_every_layer(tmp_path: Path, also_own: bool) -> None:
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 2}
    config = BeitConfig(
        **shape,
        image_size=16,
        patch_size=4,
        use_relative_position_bias=also_own,
        use_shared_relative_position_bias=True,
    )
    source = BeitForImageClassification(config)
    for parameter in source.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    source.save_pretrained(tmp_path)
    processor_of(PLAN.preprocessing).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path), None)
    network = adapted_network(checkpoint, checkpoint.labels, 16, 0.0, seed=0)
    assert (network.config.use_relative_position_bias, network.config.use_shared_relative_position_bias) == (
        True,
        False,
    )
    assert "beit.shared_position_bias.relative_position_bias_table" not in network.state_dict()
    pixels = torch.randn(2, 3, 16, 16)
    for each in (source, network):
        without_stochastic_depth(each)
    with torch.no_grad():
        assert torch.allclose(source.eval()(pixels).logits, network.eval()(pixels).logits, atol=1e-5)
    larger = adapted_network(checkpoint, checkpoint.labels, 24, 0.0, seed=0).state_dict()
    name = "beit.layers.1.relative_position_bias.relative_position_bias_table"
    assert torch.equal(larger[name], interpolated(network.state_dict()[name], (4, 4), (6, 6)))
