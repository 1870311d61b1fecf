"""Linear maps of 8 bits: their arithmetic, and that of a whole network beside float32."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.cpu.int8 import Int8Linear, sums_exactly
from beitcli.model.inference import Forward
from beitcli.model.preprocessing import checkpoint_preprocessing
from beitcli.model.runtime import Runtime

ROWS = torch.randn(70, 96, generator=torch.Generator().manual_seed(2)) * torch.logspace(-3, 3, 70)[:, None]


def linear(inputs: int = 96, outputs: int = 40) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(inputs, outputs).requires_grad_(False)


def test_a_linear_map_is_exact_to_half_a_step_of_each_input() -> None:
    exact = linear()
    y, expected = Int8Linear(exact)(ROWS), exact(ROWS)
    step_of_rows = ROWS.abs().amax(1) / 127
    step_of_weights = exact.weight.abs().amax(1) / (127 if sums_exactly() else 64)
    worst = (
        0.5 * step_of_rows[:, None] * exact.weight.abs().sum(1) + 0.51 * step_of_weights * ROWS.abs().sum(1)[:, None]
    )
    assert ((y - expected).abs() <= worst + 1e-5).all()
    assert (y - expected).norm() < 0.02 * expected.norm()


def test_a_row_depends_on_no_other() -> None:
    quantized = Int8Linear(linear(), F.gelu)
    together = quantized(ROWS)
    assert all(torch.equal(quantized(ROWS[number : number + 1])[0], together[number]) for number in range(len(ROWS)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_zeros_and_rows_that_are_not_finite(dtype: torch.dtype) -> None:
    rows = ROWS[:4].to(dtype)
    rows[0], rows[1, 3], rows[2, 5] = 0, torch.inf, torch.nan
    exact = linear()
    y = Int8Linear(exact)(rows)
    assert y.dtype == torch.float32
    assert torch.equal(y[0], exact.bias)
    assert not y[1:3].isfinite().any()
    assert y[3].isfinite().all()


EXACT = """
import torch
from beitcli.model.cpu.int8 import Int8Linear, sums_exactly

linear = torch.nn.Linear(768, 64).requires_grad_(False)
linear.weight[:] = 1.0
linear.bias[:] = 0.0
rows = torch.ones(32, 768)
print(sums_exactly(), float(Int8Linear(linear)(rows).mean()))
"""


@pytest.mark.parametrize(
    "instructions", ["AVX2", *(pytest.param(each, marks=pytest.mark.slow) for each in ("AVX512_CORE", "DEFAULT"))]
)
def test_sums_never_overflow(instructions: str) -> None:
    """oneDNN sums pairs of products in 16 bits where the CPU has no VNNI."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    process = subprocess.run([sys.executable, "-c", EXACT], env=environment, capture_output=True, text=True, check=True)
    assert float(process.stdout.split()[1]) == pytest.approx(768, rel=1e-5)


@pytest.mark.parametrize("output", ["logits", "mean", "layers"])
def test_a_network_is_close_to_float32(output: str) -> None:
    checkpoint = open_checkpoint("demo", None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    pixels = torch.randint(
        0, 256, (9, *preprocessing.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(4)
    )
    exact, rough = (
        Forward(checkpoint, preprocessing, Runtime("cpu", dtype), 4, output)(pixels)  # type: ignore[arg-type]
        for dtype in ("fp32", "int8")
    )
    assert not torch.equal(exact, rough)
    assert (exact - rough).norm() < 0.05 * exact.norm()
    if output == "logits":
        assert torch.equal(exact.argmax(1), rough.argmax(1))
