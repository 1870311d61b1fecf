"""Measurements inside the process, on the smallest shape: all present and consistent."""

from pathlib import Path

import pytest

from beitcli.bench.ceiling import ceiling
from beitcli.bench.clock import SMALL
from beitcli.bench.decoding import decoding_rates
from beitcli.bench.machine import this_machine
from beitcli.bench.model import BATCH_SIZES, model_rates, runtimes
from beitcli.bench.shapes import TINY
from beitcli.errors import UsageError
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.preprocessing import checkpoint_preprocessing
from beitcli.model.runtime import Runtime


def test_the_machine() -> None:
    machine = this_machine("cpu", 3)
    assert machine.processor
    assert (machine.cores, machine.device, machine.gpu) == (3, "cpu", None)
    with pytest.raises(UsageError, match="CUDA devices"):
        this_machine("cuda:99", 3)


def test_runtimes() -> None:
    dtypes = [runtime.dtype for runtime in runtimes("cpu", compiled=False)]
    assert dtypes in (["bf16", "fp32", "int8"], ["fp32", "int8"])


@pytest.mark.parametrize("runtime", runtimes("cpu", compiled=False), ids=lambda runtime: runtime.dtype)
def test_rates(runtime: Runtime, made_model: Path, made_images: list[str]) -> None:
    most = ceiling(TINY, runtime, SMALL)
    assert most.dtype == runtime.dtype
    assert most.product.per_second > 0
    checkpoint = open_checkpoint(str(made_model), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    rates = model_rates(TINY, checkpoint, preprocessing, runtime, most.linears.per_second, SMALL)
    assert tuple(rate.batch_size for rate in rates) == BATCH_SIZES
    for rate in rates:
        assert rate.gflops == pytest.approx(rate.images.per_second * TINY.gflop)
        assert rate.share == pytest.approx(rate.gflops / most.linears.per_second)
    decoding = decoding_rates(made_images, preprocessing, SMALL)
    assert decoding.full.per_second > 0
    assert decoding.fast.per_second > 0
