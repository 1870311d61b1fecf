"""The layers for AMX: closer to float32 than torch's bf16, independent of the batch, compiled once."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from beitcli.errors import BeitError, ModelError
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.amx import has_amx_layers, use_amx_layers
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.network import Beit
from beitcli.model.preprocessing import checkpoint_preprocessing, paper_preprocessing
from beitcli.model.runtime import Runtime
from tests.model.cpu.seeded import HALF, RELATIVE, error, pixels, saved

BF16 = Runtime("cpu", "bf16", compiled=True)

pytestmark = pytest.mark.skipif(not has_amx_layers(BF16) or compiler() is None, reason="no AMX, or no C++ compiler")


def networks(folder: str, side: int, output: Any = "logits") -> tuple[Beit, Beit, Beit]:
    """The same network in float32, in torch's bf16, and with the layers for AMX."""
    checkpoint = open_checkpoint(folder, None)
    exact, rounded, ours = (
        Beit(checkpoint.config, checkpoint.tensors(), (side, side), HALF, dtype, output).eval()
        for dtype in (torch.float32, torch.bfloat16, torch.bfloat16)
    )
    use_amx_layers(ours)
    assert len(ours.layers) == 1
    return exact, rounded, ours


@pytest.mark.parametrize(
    ("side", "config"),
    [
        pytest.param(32, {}, id="no positions"),
        pytest.param(32, RELATIVE, id="relative"),
        pytest.param(32, RELATIVE | {"use_shared_relative_position_bias": True}, id="both biases"),
        pytest.param(32, {"use_absolute_position_embeddings": True, "use_mean_pooling": False}, id="absolute, CLS"),
        pytest.param(24, RELATIVE, id="fewer tokens than a tile"),
        pytest.param(56, RELATIVE, id="tokens of several tiles and a rest"),
        pytest.param(184, RELATIVE, id="more tokens than rows at once"),
        pytest.param(32, RELATIVE | {"intermediate_size": 160}, id="an inner layer of its own width"),
        pytest.param(32, RELATIVE | {"layer_scale_init_value": 0.0, "layer_norm_eps": 0.1}, id="other norms"),
        pytest.param(32, RELATIVE | {"hidden_size": 192, "num_attention_heads": 3}, id="three heads"),
    ],
)
def test_it_is_closer_to_float32_than_torch(side: int, config: dict[str, Any], tmp_path: Path) -> None:
    exact, rounded, ours = networks(saved(tmp_path, **config), side, "patches")
    batch = pixels(5, side)
    with torch.inference_mode():
        expected = exact(batch)
        assert error(ours(batch), expected) < min(0.01, error(rounded(batch), expected))


@pytest.mark.parametrize("side", [32, 184])
def test_logits_depend_on_neither_batch_nor_threads(side: int, tmp_path: Path) -> None:
    _, _, ours = networks(saved(tmp_path, **RELATIVE), side)
    [layers] = ours.layers
    batch = pixels(30, side)
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            together = layers(states := states_before(ours, batch))
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                assert torch.equal(layers(states), together)
                assert torch.equal(layers(states[7:9]), together[7:9])
                assert torch.equal(layers(states.flip(0)).flip(0), together)
    finally:
        torch.set_num_threads(threads)


def states_before(network: Beit, batch: Tensor) -> Tensor:
    """Input of the layers."""
    patches = network.projection(network._patches(batch).to(torch.bfloat16))
    return torch.cat((network.start.expand(len(patches), -1, -1), patches), dim=1)


def test_nan_states_do_not_spread_to_other_images(tmp_path: Path) -> None:
    _, _, ours = networks(saved(tmp_path, **RELATIVE), 32)
    [layers] = ours.layers
    with torch.inference_mode():
        states = states_before(ours, pixels(30, 32))
        whole = layers(states)
        states[11, 3, 5] = float("nan")
        broken = layers(states)
    assert broken[11].isnan().all()
    others = torch.arange(30) != 11
    assert torch.equal(broken[others], whole[others])


def test_weights_that_are_not_finite_are_found(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path, **RELATIVE)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["beit.encoder.layer.1.intermediate.dense.weight"][0, 0] = float("inf")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    checkpoint = open_checkpoint(folder, None)
    classifier = PixelClassifier(checkpoint, paper_preprocessing(32), BF16, 5)
    with pytest.raises(ModelError, match="not finite"):
        classifier(pixels(1, 32))


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = saved(tmp_path / "model", **RELATIVE)
    with caplog.at_level("INFO"):
        networks(folder, 32)
        networks(folder, 48)
    assert caplog.text.count("compiling the layers") == 1
    [library] = (tmp_path / "cache").rglob("*.so")
    assert [path.name for path in library.parent.iterdir()] == [library.name]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"PATH": "", "CXX": ""}, "no C++ compiler"),
        ({"CXX": "false"}, "/false failed"),
        ({"XDG_CACHE_HOME": "/dev/null"}, "Not a directory"),
    ],
)
def test_the_network_runs_uncompiled_if_compilation_fails(
    broken: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    checkpoint = open_checkpoint(saved(tmp_path / "model", **RELATIVE), None)
    preprocessing = paper_preprocessing(32)
    plain = PixelClassifier(checkpoint, preprocessing, Runtime("cpu", "bf16"), 5)(pixels(2, 32))
    for name, value in broken.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level("INFO"):
        assert PixelClassifier(checkpoint, preprocessing, BF16, 5)(pixels(2, 32)) == plain
    assert "the network runs uncompiled: " in caplog.text
    assert message in caplog.text


@pytest.mark.parametrize(
    "changed",
    [
        {
            "beit.embeddings.patch_embeddings.projection.weight": (32, 3, 8, 8),
            "beit.embeddings.patch_embeddings.projection.bias": (32,),
            "beit.embeddings.cls_token": (1, 1, 32),
        },
        {"beit.embeddings.patch_embeddings.projection.bias": (32,)},
        {"beit.encoder.layer.0.attention.output.dense.weight": (128, 64)},
        {"beit.encoder.layer.2.layernorm_before.weight": (1,), "beit.encoder.layer.2.layernorm_before.bias": (1,)},
        {"beit.encoder.layer.1.output.dense.weight": (128, 128)},
        {"beit.encoder.layer.1.intermediate.dense.weight": (160, 128)},
        {f"beit.encoder.layer.0.attention.attention.{part}.weight": (64, 128) for part in ("query", "key")},
    ],
    ids=["states", "patches", "attention's output", "norm", "down", "up", "queries and keys"],
)
def test_weights_of_other_sizes_are_rejected(changed: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path, **RELATIVE)
    tensors = load_file(tmp_path / "model.safetensors")
    assert changed.keys() <= tensors.keys()
    save_file(tensors | {name: torch.ones(sides) for name, sides in changed.items()}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(folder, None)
    messages = []
    for runtime in (Runtime("cpu", "bf16"), BF16):
        with pytest.raises(BeitError) as raised:
            PixelClassifier(checkpoint, paper_preprocessing(32), runtime, 5)(pixels(1, 32))
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_a_network_without_layers_runs_uncompiled(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(tmp_path, num_hidden_layers=0), None)
    plain, ours = (
        PixelClassifier(checkpoint, paper_preprocessing(32), runtime, 5)(pixels(2, 32))
        for runtime in (Runtime("cpu", "bf16"), BF16)
    )
    assert ours == plain


def test_a_damaged_library_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    networks(folder, 32)
    [library] = (Path(os.environ["XDG_CACHE_HOME"])).rglob("amx-*.so")
    damaged = tmp_path / "cache" / "beit" / "compiled" / library.name  # as this process has the first one mapped
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    networks(folder, 32)
    assert damaged.stat().st_size == library.stat().st_size


def test_other_networks_run_uncompiled(tiny_beit: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = open_checkpoint(str(tiny_beit), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    plain = PixelClassifier(checkpoint, preprocessing, Runtime("cpu", "bf16"), 5)(pixels(2, 32))
    with caplog.at_level("INFO"):
        assert PixelClassifier(checkpoint, preprocessing, BF16, 5)(pixels(2, 32)) == plain
    assert "heads of 64 and GELU" in caplog.text
