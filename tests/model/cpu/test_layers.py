"""The layers for AMX and AVX512: as exact as torch's of the same dtype, independent of the batch, compiled once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from beitcli.errors import BeitError
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.int8 import quantized_layers
from beitcli.model.cpu.layers import fits_layers, instructions_for, use_layers
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.network import Beit
from beitcli.model.preprocessing import paper_preprocessing
from beitcli.model.runtime import Runtime, has_avx512
from tests.model.cpu.seeded import HALF, RELATIVE, error, pixels, saved

COMPILED = Runtime("cpu", "bf16" if has_avx512("bf16", "vnni") else "fp32", compiled=True)

BY_DTYPE = {dtype: instructions_for(Runtime("cpu", dtype)) or "" for dtype in ("fp32", "bf16", "int8")}

DTYPES = pytest.mark.parametrize("dtype", [dtype for dtype, best in BY_DTYPE.items() if best])

OTHERS = (("AVX512", "bf16"), ("AVX512", "int8"), ("AVX512 without bf16", "int8"))
"""Instructions that a CPU with bf16 and VNNI has beside the best, or as the best."""

KINDS = pytest.mark.parametrize(
    ("instructions", "dtype"),
    sorted({(best, dtype) for dtype, best in BY_DTYPE.items() if best} | set(OTHERS if BY_DTYPE["bf16"] else ())),
)

pytestmark = pytest.mark.skipif(not has_avx512() or compiler() is None, reason="no AVX512, or no C++ compiler")


def network(
    folder: str, side: int, dtype: str, output: Any = "logits", *, is_compiled: bool = False, instructions: str = ""
) -> Beit:
    checkpoint = open_checkpoint(folder, None)
    options: dict[str, Any] = {"arranged": quantized_layers} if dtype == "int8" else {}
    tensors, runtime = checkpoint.tensors(), Runtime("cpu", "fp32" if dtype == "exact" else dtype)
    torch_dtype = torch.float64 if dtype == "exact" else runtime.torch_dtype
    made = Beit(checkpoint.config, tensors, (side, side), HALF, torch_dtype, output, **options).eval()
    if is_compiled:
        assert fits_layers(made)
        use_layers(made, instructions or BY_DTYPE[dtype])
        assert len(made.layers) == 1
    return made


@KINDS
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
        pytest.param(32, RELATIVE | {"intermediate_size": 320}, id="an inner layer of its own width"),
        pytest.param(32, RELATIVE | {"layer_scale_init_value": 0.0, "layer_norm_eps": 0.1}, id="other norms"),
        pytest.param(32, RELATIVE | {"hidden_size": 192, "num_attention_heads": 3}, id="three heads"),
    ],
)
def test_it_is_as_exact_as_torch(
    side: int, config: dict[str, Any], dtype: str, instructions: str, tmp_path: Path
) -> None:
    folder, batch = saved(tmp_path, **config), pixels(5, side)
    for output in ("patches", "mean"):
        with torch.inference_mode():
            exact = network(folder, side, "exact", output)(batch)
            ours = network(folder, side, dtype, output, is_compiled=True, instructions=instructions)(batch)
            theirs = network(folder, side, dtype, output)(batch)
        factor = {"fp32": 1.5, "bf16": 1.0, "int8": 1.1}[dtype]
        assert error(ours, exact) < max(factor * error(theirs, exact), 2e-7)  # as exact as a float's 24 bits


@KINDS
@pytest.mark.parametrize("side", [32, 184])
def test_states_depend_on_neither_batch_nor_threads(side: int, dtype: str, instructions: str, tmp_path: Path) -> None:
    ours = network(saved(tmp_path, **RELATIVE), side, dtype, is_compiled=True, instructions=instructions)
    [layers] = ours.layers
    states = states_before(ours, pixels(30, side))
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            together = layers(states)
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                assert torch.equal(layers(states), together)
                assert torch.equal(layers(states[7:9]), together[7:9])
                assert torch.equal(layers(states.flip(0)).flip(0), together)
    finally:
        torch.set_num_threads(threads)


def states_before(network: Beit, batch: Tensor) -> Tensor:
    """Input of the layers."""
    with torch.inference_mode():
        patches = network.projection(network._patches(batch).to(network.start.dtype))
        return torch.cat((network.start.expand(len(patches), -1, -1), patches), dim=1)


def test_states_before_the_layers_stay_as_they_are(tmp_path: Path) -> None:
    ours = network(saved(tmp_path, **RELATIVE), 32, COMPILED.dtype, is_compiled=True)
    states = states_before(ours, pixels(3, 32))
    before = states.clone()
    [layers] = ours.layers
    with torch.inference_mode():
        assert not torch.equal(layers(states), before)
    assert torch.equal(states, before)


@DTYPES
def test_networks_that_differ_in_their_inner_layer_alone_take_turns(dtype: str, tmp_path: Path) -> None:
    batch = pixels(3, 56)
    folders = [saved(tmp_path / str(inner), **RELATIVE, intermediate_size=inner) for inner in (128, 4096)]
    with torch.inference_mode():
        made = [network(folder, 56, dtype, "mean", is_compiled=True) for folder in folders]
        for ours, folder in zip(made * 2, folders * 2, strict=True):
            theirs = network(folder, 56, dtype, "mean")(batch)
            assert error(ours(batch), theirs.double()) < (1e-5 if dtype == "fp32" else 0.05)


@DTYPES
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_states_that_are_not_finite_do_not_spread_to_other_images(broken: float, dtype: str, tmp_path: Path) -> None:
    ours = network(saved(tmp_path, **RELATIVE), 32, dtype, is_compiled=True)
    [layers] = ours.layers
    states = states_before(ours, pixels(30, 32))
    with torch.inference_mode():
        whole = layers(states)
        kept = states[11, 3, 5].clone()
        states[11, 3, 5] = broken
        changed = layers(states)
        states[11, 3, 5] = kept
        assert torch.equal(layers(states), whole)  # nor to the next batch, in the same memory
    assert not changed[11].isfinite().any()
    others = torch.arange(30) != 11
    assert torch.equal(changed[others], whole[others])


@DTYPES
@pytest.mark.parametrize("factor", [300.0, 1e4])
def test_scores_of_any_size_have_a_softmax(factor: float, dtype: str, tmp_path: Path) -> None:
    """Also where powers of 2 are beyond a float's, unless the row's highest score is subtracted first."""
    from safetensors.torch import load_file, save_file

    folder, batch = saved(tmp_path, **RELATIVE), pixels(5, 32)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, tensor in tensors.items():
        if "relative_position_bias_table" in name:
            tensor *= factor
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with torch.inference_mode():
        exact = network(folder, 32, "exact", "patches")(batch)
        ours = network(folder, 32, dtype, "patches", is_compiled=True)(batch)
        assert error(ours, exact) < (1e-4 if dtype == "fp32" else 0.05)


def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = saved(tmp_path / "model", **RELATIVE)
    with caplog.at_level("INFO"):
        network(folder, 32, COMPILED.dtype, is_compiled=True)
        network(folder, 48, COMPILED.dtype, is_compiled=True)
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
    plain = PixelClassifier(checkpoint, preprocessing, replace(COMPILED, compiled=False), 5)(pixels(2, 32))
    for name, value in broken.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level("INFO"):
        assert PixelClassifier(checkpoint, preprocessing, COMPILED, 5)(pixels(2, 32)) == plain
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
    for runtime in (replace(COMPILED, compiled=False), COMPILED):
        with pytest.raises(BeitError) as raised:
            PixelClassifier(checkpoint, paper_preprocessing(32), runtime, 5)(pixels(1, 32))
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_a_network_without_layers_runs_uncompiled(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(tmp_path, num_hidden_layers=0), None)
    plain, ours = (
        PixelClassifier(checkpoint, paper_preprocessing(32), runtime, 5)(pixels(2, 32))
        for runtime in (replace(COMPILED, compiled=False), COMPILED)
    )
    assert ours == plain


@pytest.mark.parametrize("kept", [0, 0.5, 0.9999], ids=["empty", "half", "nearly all"])
def test_a_damaged_library_is_compiled_again(kept: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    network(folder, 32, COMPILED.dtype, is_compiled=True)
    [library] = (tmp_path / "first").rglob("layers-*.so")
    damaged = tmp_path / "cache" / "beit" / "compiled" / library.name  # as this process has the first one mapped
    damaged.parent.mkdir(parents=True)
    whole = library.read_bytes()
    broken = whole[: int(kept * len(whole))].ljust(len(whole) if kept else 0, b"\0")
    damaged.write_bytes(broken)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    network(folder, 32, COMPILED.dtype, is_compiled=True)
    assert damaged.read_bytes() != broken
    assert damaged.stat().st_size == len(whole)


@pytest.mark.parametrize(
    ("dtype", "config"),
    [
        ("bf16", {"hidden_size": 96, "num_attention_heads": 3}),
        ("bf16", {"hidden_act": "relu"}),
        ("bf16", {"intermediate_size": 144}),
        ("int8", {"intermediate_size": 160}),
        ("int8", {"num_hidden_layers": 0}),
    ],
    ids=["narrow heads", "another activation", "no whole tiles", "no whole tiles of int8", "no layers"],
)
def test_other_networks_are_left_to_the_fused_passes(dtype: str, config: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path, **config)
    assert not fits_layers(network(folder, 32, dtype))
    checkpoint, runtime = open_checkpoint(folder, None), Runtime("cpu", dtype)
    plain, ours = (
        PixelClassifier(checkpoint, paper_preprocessing(32), each, 5)(pixels(2, 32))
        for each in (runtime, replace(runtime, compiled=True))
    )
    assert [row[0].index for row in ours] == [row[0].index for row in plain]


@pytest.mark.parametrize("config", [{"hidden_act": "relu"}, {"num_hidden_layers": 0}], ids=["activation", "no layers"])
def test_in_fp32_other_networks_run_uncompiled(
    config: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint, runtime = open_checkpoint(saved(tmp_path, **config), None), Runtime("cpu", "fp32")
    with caplog.at_level("INFO"):
        plain, ours = (
            PixelClassifier(checkpoint, paper_preprocessing(32), each, 5)(pixels(2, 32))
            for each in (runtime, replace(runtime, compiled=True))
        )
    assert ours == plain
    assert "the network runs uncompiled" in caplog.text
