"""Peak memory of a command: what is freed while weights load is returned."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.memory import LAUNCHER
from tests.model.cpu.seeded import RELATIVE, saved

LEAST_DIFFERENCE = 40_000  # KB, of 76 MB of weights in 8 bits that are 151 in bf16


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is glibc's")
def test_quantized_weights_take_less_memory_than_bf16_also_while_they_load(tmp_path: Path) -> None:
    wide = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "num_hidden_layers": 24}
    folder, image = saved(tmp_path / "model", **RELATIVE, **wide), tmp_path / "image.png"
    Image.new("RGB", (40, 40)).save(image)
    run = ("classify", str(image), "-m", folder, "--preprocess", "paper", "-q", "-j", "0", "--no-check", "--no-compile")
    int8, bf16 = (peak(*run, "--device", "cpu", "--dtype", dtype) for dtype in ("int8", "bf16"))
    assert bf16 - int8 > LEAST_DIFFERENCE


def peak(*arguments: str) -> int:
    """The peak memory of the command in KB."""
    done = subprocess.run(
        [*LAUNCHER, sys.executable, "-m", "beitcli", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])
