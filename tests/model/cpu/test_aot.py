"""The compiled network: same predictions, compiled once and cached, uncompiled if that fails."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.aot import compiled_network
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.preprocessing import Preprocessing, checkpoint_preprocessing
from beitcli.model.runtime import Runtime
from tests.cli.test_signals import start
from tests.conftest import SAMPLES

COMPILED = Runtime("cpu", "fp32", compiled=True, many_batches=True)

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture
def tiny(tiny_beit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # AVX512 has layers of our own
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_checkpoint(str(tiny_beit), None)


def preprocessing_of(checkpoint: Checkpoint) -> Preprocessing:
    return checkpoint_preprocessing(checkpoint.processor, None)


def pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def predictions(checkpoint: Checkpoint, runtime: Runtime, count: int) -> list[list[tuple[int, float]]]:
    found = PixelClassifier(checkpoint, preprocessing_of(checkpoint), runtime, 0, 4)(pixels(count))
    return [[(score.index, score.score) for score in sorted(scores, key=lambda score: score.index)] for scores in found]


def libraries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.so"))


@needs_compiler
@pytest.mark.slow
def test_predictions_agree_and_it_is_compiled_once(
    tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = predictions(tiny, Runtime("cpu", "fp32"), 4)
    compiled = predictions(tiny, COMPILED, 4)
    for own, expected in zip(compiled, plain, strict=True):
        assert own == [(index, pytest.approx(score, abs=1e-4)) for index, score in expected]
    [library] = libraries(tmp_path)
    assert predictions(tiny, COMPILED, 3) == compiled[:3]  # a smaller batch is padded
    network = compiled_network(tiny, preprocessing_of(tiny), COMPILED, 4)
    assert network is not None
    batches = [pixels(4).roll(number, 0) for number in range(4)]
    one_by_one = [network(batch) for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(network, batches * 25))
    assert all(torch.equal(*pair) for pair in zip(together, one_by_one * 25, strict=True))
    assert libraries(tmp_path) == [library]
    assert os.listdir(library.parent) == [library.name]
    other = tmp_path / "other" / library.relative_to(tmp_path / "cache")  # as this process has the first one mapped
    other.parent.mkdir(parents=True)
    other.write_bytes(b"damaged")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert predictions(tiny, COMPILED, 4) == plain


def test_without_a_compiler_it_runs_uncompiled(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = predictions(tiny, Runtime("cpu", "fp32"), 4)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level("INFO"):
        assert predictions(tiny, COMPILED, 4) == plain
    assert "no C++ compiler" in caplog.text


@needs_compiler
def test_without_a_cache_folder_it_runs_uncompiled(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = predictions(tiny, Runtime("cpu", "fp32"), 4)
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    with caplog.at_level("INFO"):
        assert predictions(tiny, COMPILED, 4) == plain
    assert "the network runs uncompiled: [Errno 20] Not a directory" in caplog.text


@needs_compiler
@pytest.mark.slow
def test_stopped_while_it_compiles_it_leaves_nothing(tmp_path: Path) -> None:
    process = start(
        *("classify", SAMPLES / "cat.jpg", "-m", "demo", "--dtype", "fp16", "--compile"),
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    until = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("tmp*/*")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
