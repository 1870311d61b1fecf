"""Layers of 8 bits in the cache: used where nothing has changed, and nowhere else."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.cpu.layers import instructions_for
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.inference import Forward
from beitcli.model.network import Output
from beitcli.model.preprocessing import paper_preprocessing
from beitcli.model.runtime import Runtime
from tests.model.cpu.seeded import RELATIVE, pixels, saved

INT8 = Runtime("cpu", "int8", compiled=True)

pytestmark = pytest.mark.skipif(
    not instructions_for(INT8) or compiler() is None, reason="neither AMX nor AVX512 with bf16, or no C++ compiler"
)


@pytest.fixture
def kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "beit" / "compiled"


def outputs(folder: str, output: Output = "logits", side: int = 32) -> Tensor:
    checkpoint = open_checkpoint(folder, None)
    return Forward(checkpoint, paper_preprocessing(side), INT8, 2, output)(pixels(2, side))


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("int8-*"))


def spoil(folder: str) -> None:
    """Change weights of a layer, but neither size nor time of modification of their file."""
    path = Path(folder) / "model.safetensors"
    before, content = path.stat(), path.read_bytes()
    tensors = load_file(path)
    values = tensors["beit.encoder.layer.1.output.dense.weight"].numpy().tobytes()
    at = content.index(values)
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(bytes(len(values)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("output", ["logits", "mean", "patches"])
def test_the_next_start_takes_the_same_layers(output: Output, kept_in: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    first = outputs(folder, output)
    [path] = kept(kept_in)
    written = path.stat().st_ino
    assert torch.equal(outputs(folder, output), first)
    assert [each.stat().st_ino for each in kept(kept_in)] == [written]


def test_other_weights_have_other_layers(kept_in: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    first = outputs(folder)
    spoil(folder)
    second = outputs(folder)
    assert not torch.equal(second, first)
    path = Path(folder) / "model.safetensors"
    tensors = load_file(path)
    tensors["beit.encoder.layer.0.output.dense.weight"] *= 0
    save_file(tensors, path, {"format": "pt"})
    assert not torch.equal(outputs(folder), second)
    assert len(kept(kept_in)) == 3


def test_another_size_or_output_has_other_layers(kept_in: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    first = outputs(folder)
    outputs(folder, side=48)
    outputs(folder, "patches")
    assert torch.equal(outputs(folder), first)
    assert len(kept(kept_in)) == 3


@pytest.mark.parametrize("damage", ["bit", "digit", "half", "longer", "empty", "header"])
def test_damaged_layers_are_made_anew(damage: str, kept_in: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    first = outputs(folder)
    [path] = kept(kept_in)
    content = path.read_bytes()

    def flipped(at: int) -> bytes:
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    damaged = {
        "bit": flipped(len(content) // 2),
        "digit": flipped(content.index(b"places") + 12),
        "half": content[: len(content) // 2],
        "longer": content + b"0",
        "empty": b"",
        "header": b"[]\n" + content,
    }
    path.write_bytes(damaged[damage])
    assert torch.equal(outputs(folder), first)
    assert path.read_bytes() == content


def test_the_newest_four_stay(kept_in: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    for side in (16, 24, 32, 40):
        outputs(folder, side=side)
    [oldest, *_] = sorted(kept(kept_in), key=lambda path: path.stat().st_mtime_ns)
    outputs(folder, side=16)  # used again, and so not the oldest
    outputs(folder, side=48)
    assert len(kept(kept_in)) == 4
    assert oldest in kept(kept_in)


def test_without_room_in_the_cache_nothing_is_kept(
    kept_in: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    first = outputs(folder)
    for path in kept(kept_in):
        path.unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with caplog.at_level("DEBUG"):
            assert torch.equal(outputs(folder), first)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "the layers are not kept: " in caplog.text
    assert kept(kept_in) == []


def test_a_network_without_layers_keeps_none(kept_in: Path, tmp_path: Path) -> None:
    outputs(saved(tmp_path / "model", num_hidden_layers=0))
    assert kept(kept_in) == []
