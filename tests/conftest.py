"""Fixtures of all tests: a private environment, a tiny BEiT, photographs, and `beit` as a real process."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does, before torch is imported
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of the hundreds of processes compiles every module anew

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody whom file modes bind, which root is not."""
    if os.geteuid():
        yield
        return
    try:
        os.seteuid(65534)
    except OSError:
        pytest.skip("root cannot become another user here")
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of all tests: what is compiled for all models is compiled once for them."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def private_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> None:
    """No network, no colours, nothing from the user's settings or caches; batches as small as the tests' inputs."""
    for name in [name for name in os.environ if name.startswith(("BEIT_", "HF_", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("BEIT_BATCH_SIZE", "4")  # as the last batch is padded, the default of 32 computes 29 for 3
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(scope="session")
def tiny_beit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a seeded BEiT of two layers, 32 pixels and five labels, with its image processor."""
    import torch
    from transformers import BeitConfig, BeitForImageClassification
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

    folder = tmp_path_factory.mktemp("tiny") / "beit"
    torch.manual_seed(7)
    labels = ["ant", "bee", "cow, moo cow", "dog", "eel"]
    config = BeitConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        use_relative_position_bias=True,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    network = BeitForImageClassification(config)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    network.save_pretrained(folder)
    BeitImageProcessorPil(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
    return folder


@pytest.fixture
def beit(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[bytes]"]:
    """`beit` as a process of its own, in an empty folder unless `cwd` says otherwise; see `preloaded` for `light`."""

    def run(*arguments: object, cwd: Path = tmp_path, **options: Any) -> "subprocess.CompletedProcess[bytes]":
        return preloaded.beit([os.fsencode(str(argument)) for argument in arguments], cwd, **options)

    return run
