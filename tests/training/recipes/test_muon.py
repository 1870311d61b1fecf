"""Batched Muon gives the steps of torch's Muon, which takes the matrices one by one."""

import pytest
import torch

from beitcli.training.recipes.muon import Muon, orthogonalised

SHAPES = [(8, 8), (16, 8), (8, 8), (8, 16), (16, 8)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_those_of_torch(dtype: torch.dtype) -> None:
    ours, theirs = ([torch.nn.Parameter(torch.ones(shape)) for shape in SHAPES] for _ in range(2))
    together = Muon(ours, 0.1, 0.05, dtype)
    each = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    torch.manual_seed(0)
    for _ in range(3):
        for mine, its in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        together.step()
        each.step()
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.detach() == pytest.approx(its.detach(), abs=5e-3)  # theirs are in bf16
        assert (mine - 1).abs().mean() > 0.02


def test_weights_without_gradient_are_unchanged() -> None:
    trained, frozen = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    trained.grad = torch.eye(4)
    Muon([trained, frozen], 0.1, 0.05, torch.float32).step()
    assert not torch.equal(trained, frozen)
    assert torch.equal(frozen, torch.ones(4, 4))


def test_convolution_weights_are_flattened_to_a_matrix() -> None:
    flat, deep = torch.nn.Parameter(torch.ones(4, 12)), torch.nn.Parameter(torch.ones(4, 3, 2, 2))
    flat.grad = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    deep.grad = flat.grad.view(4, 3, 2, 2).clone()
    Muon([flat, deep], 0.1, 0.05, torch.float32).step()
    assert torch.equal(flat, deep.flatten(1))
    assert not torch.equal(flat, torch.ones(4, 12))


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 64, 16), (2, 16, 64)])
def test_singular_values_are_near_one_and_vectors_unchanged(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    kept = left.transpose(1, 2) @ orthogonalised(matrices) @ right.transpose(1, 2)
    diagonals = kept.diagonal(dim1=1, dim2=2)
    large = values > 0.02 * values.norm(dim=1, keepdim=True)  # the smallest would take more iterations
    assert diagonals[large].min() > 0.65 and diagonals[large].max() < 1.25
    assert (kept - torch.diag_embed(diagonals)).abs().max() < 1e-4
