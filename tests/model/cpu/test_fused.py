"""Fused passes: as close to float32 as torch's own, independent of batch and threads, compiled once."""

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from beitcli.errors import BeitError
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.cpu.fused import Passes, Rows, Sums, use_fused_passes
from beitcli.model.cpu.int8 import Int8Linear, QuantizedLayer, quantized_layers
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.network import Beit, biased_softmax
from beitcli.model.preprocessing import paper_preprocessing
from beitcli.model.runtime import Runtime
from tests.model.cpu.seeded import HALF, RELATIVE, error, pixels, saved

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

INT8 = Runtime("cpu", "int8", compiled=True)


def network(folder: str, side: int, dtype: str, output: Any = "patches", *, is_fused: bool = False) -> Beit:
    checkpoint = open_checkpoint(folder, None)
    options: dict[str, Any] = {"arranged": quantized_layers} if dtype == "int8" else {}
    tensors, torch_dtype = checkpoint.tensors(), Runtime("cpu", dtype).torch_dtype
    made = Beit(checkpoint.config, tensors, (side, side), HALF, torch_dtype, output, **options).eval()
    if is_fused:
        use_fused_passes(made)
        assert not any(
            isinstance(each, QuantizedLayer) or getattr(each, "softmax", None) is biased_softmax for each in made.layers
        )
    return made


@pytest.mark.parametrize("dtype", ["int8", "bf16"])
@pytest.mark.parametrize(
    ("side", "config"),
    [
        pytest.param(32, {}, id="no positions"),
        pytest.param(32, RELATIVE, id="relative"),
        pytest.param(32, {"use_absolute_position_embeddings": True, "use_mean_pooling": False}, id="absolute, CLS"),
        pytest.param(56, RELATIVE, id="an odd number of tokens"),
        pytest.param(184, RELATIVE, id="more tokens than scores at once"),
        pytest.param(32, RELATIVE | {"intermediate_size": 150}, id="sides that fill no vector"),
        pytest.param(32, RELATIVE | {"layer_scale_init_value": 0.0, "layer_norm_eps": 0.1}, id="other norms"),
        pytest.param(32, RELATIVE | {"hidden_size": 60, "num_attention_heads": 3}, id="three narrow heads"),
    ],
)
def test_it_is_as_close_to_float32_as_torch(side: int, config: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    folder, batch = saved(tmp_path, **config), pixels(5, side)
    for output in ("patches", "mean"):
        with torch.inference_mode():
            exact = network(folder, side, "fp32", output)(batch)
            ours = network(folder, side, dtype, output, is_fused=True)(batch)
            theirs = network(folder, side, dtype, output)(batch)
        assert error(ours, exact) < 1.1 * error(theirs, exact)


@pytest.mark.parametrize("attention", [torch.float32, torch.bfloat16])
def test_attention_in_either_dtype_is_close(attention: torch.dtype, tmp_path: Path) -> None:
    """The machine decides which of them a run takes."""
    folder, batch = saved(tmp_path, **RELATIVE), pixels(5, 32)
    quantized = network(folder, 32, "int8")
    for each in quantized.layers:
        assert isinstance(each, QuantizedLayer)
        assert each.layer.bias is not None
        cast(Int8Linear, each.layer.qkv).dtype = attention
        each.layer.bias = each.layer.bias.to(attention)
    with torch.inference_mode():
        exact, theirs = network(folder, 32, "fp32")(batch), quantized(batch)
        use_fused_passes(quantized)
        assert error(quantized(batch), exact) < 1.1 * error(theirs, exact)


@pytest.mark.parametrize("side", [32, 184])
def test_states_depend_on_neither_batch_nor_threads(side: int, tmp_path: Path) -> None:
    layer = network(saved(tmp_path, **RELATIVE), side, "int8", is_fused=True).layers[1]
    states = torch.randn(9, 1 + (side // 8) ** 2, 128, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            together = layer(states)
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                assert torch.equal(layer(states), together)
                assert torch.equal(layer(states[5:6]), together[5:6])
                assert torch.equal(layer(states.flip(0)).flip(0), together)
    finally:
        torch.set_num_threads(threads)


def test_states_before_a_layer_stay_as_they_are(tmp_path: Path) -> None:
    """The features of each layer are taken from them."""
    layer = network(saved(tmp_path, **RELATIVE), 32, "int8", is_fused=True).layers[0]
    states = torch.randn(3, 17, 128)
    before = states.clone()
    with torch.inference_mode():
        assert not torch.equal(layer(states), before)
    assert torch.equal(states, before)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_does_not_spread_to_other_images(broken: float, tmp_path: Path) -> None:
    layer = network(saved(tmp_path, **RELATIVE), 32, "int8", is_fused=True).layers[0]
    states = torch.randn(9, 17, 128)
    with torch.inference_mode():
        whole = layer(states)
        states[4, 3, 5] = broken
        changed = layer(states)
    assert not changed[4].isfinite().any()
    others = torch.arange(9) != 4
    assert torch.equal(changed[others], whole[others])


def test_gelu_is_exact_to_half_a_step() -> None:
    """Sums that stand for -20 to 20 in steps of 1/100, so that one row has all of GELU."""
    count = 4001
    linear = Int8Linear(nn.Linear(count, count).requires_grad_(False))
    linear.scale, linear.bias = torch.ones(count), torch.linspace(-20, 20, count)
    rows, activated = Rows(1, count), Rows(1, count)
    values, scales = rows.tensors
    values.zero_(), scales.fill_(1)
    Passes().activate(Sums(rows, linear), activated)
    values, scales = activated.tensors
    expected = F.gelu(linear.bias)
    assert float(scales) == pytest.approx(20 / 127)
    assert ((values.float() * scales - expected).abs() <= 0.5 * scales + 2e-4).all()


def test_a_row_of_zeros_stays_one() -> None:
    rows = Rows(2, 40)
    Passes().join(torch.zeros(1, 4, 2, 10), rows)
    values, scales = rows.tensors
    assert not values.any()
    assert scales.isfinite().all()


@pytest.mark.parametrize("tokens", [5, 16, 21, 40])
@pytest.mark.parametrize(("spread", "mean"), [(2, 0), (20, 0), (300, 0), (1, 400), (1, -400)])
def test_softmax_is_exact_to_the_dtype(tokens: int, spread: float, mean: float) -> None:
    """Also where powers of 2 are beyond a float's, unless the row's highest score is subtracted first."""
    scores, bias = (
        torch.randn(count, 3, tokens, tokens, generator=torch.Generator().manual_seed(count)).mul(spread).bfloat16()
        for count in (2, 1)
    )
    scores += mean
    for given in (bias, None):
        expected = (scores.float() if given is None else scores.float() + given.float()).softmax(-1)
        ours = Passes().softmax(scores.clone(), given).float()
        assert ((ours - expected).abs() <= expected * (2**-8 + 2e-4) + 1e-20).all()


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_softmax_of_a_score_that_is_not_finite_is_not(broken: float) -> None:
    scores = torch.zeros(1, 1, 21, 21).bfloat16()
    scores[0, 0, 2, 20] = broken
    rows = Passes().softmax(scores, None)[0, 0]
    assert rows[2].isnan().all()
    assert (rows[torch.arange(21) != 2] == torch.tensor(1 / 21).bfloat16()).all()


def test_another_activation_runs_as_it_is(tmp_path: Path) -> None:
    folder, batch = saved(tmp_path, **RELATIVE, hidden_act="relu"), pixels(2, 32)
    quantized = network(folder, 32, "int8")
    plain = quantized(batch)
    use_fused_passes(quantized)
    assert torch.equal(quantized(batch), plain)


def predictions(folder: str, runtime: Runtime) -> list[Any]:
    return PixelClassifier(open_checkpoint(folder, None), paper_preprocessing(32), runtime, 5)(pixels(2, 32))


def test_it_is_compiled_once_and_again_if_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path / "model", **RELATIVE)
    cache = tmp_path / "cache" / "beit" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level("INFO"):
        expected = predictions(folder, INT8)
        assert predictions(folder, INT8) == expected
    assert caplog.text.count("compiling the layers") == 1
    [library] = cache.glob("*.so")
    damaged = tmp_path / "other" / library.relative_to(tmp_path / "cache")  # as this process has the first one mapped
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert predictions(folder, INT8) == expected
    assert damaged.stat().st_size == library.stat().st_size


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"PATH": "", "CXX": ""}, "no C++ compiler"),
        ({"CXX": "false"}, "/false failed"),
        ({"XDG_CACHE_HOME": os.devnull}, "Not a directory"),
    ],
)
@pytest.mark.parametrize("dtype", ["int8", "bf16"])
def test_the_network_runs_uncompiled_if_compilation_fails(
    broken: dict[str, str],
    message: str,
    dtype: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = saved(tmp_path / "model", **RELATIVE)
    plain = predictions(folder, Runtime("cpu", dtype))
    for name, value in broken.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level("INFO"):
        assert predictions(folder, Runtime("cpu", dtype, compiled=True)) == plain
    assert "the network runs uncompiled: " in caplog.text
    assert message in caplog.text


@pytest.mark.parametrize(
    "changed",
    [
        {"beit.encoder.layer.0.attention.output.dense.weight": (128, 64)},
        {"beit.encoder.layer.0.attention.output.dense.bias": (64,)},
        {"beit.encoder.layer.2.layernorm_before.weight": (64,)},
        {"beit.encoder.layer.2.layernorm_after.weight": (1,), "beit.encoder.layer.2.layernorm_after.bias": (1,)},
        {"beit.encoder.layer.1.output.dense.weight": (128, 128)},
        {"beit.encoder.layer.1.intermediate.dense.weight": (160, 128)},
    ],
    ids=["attention's output", "its bias", "norm before", "norm after", "down", "up"],
)
def test_weights_of_other_sizes_never_meet_the_passes(changed: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path, **RELATIVE)
    tensors = load_file(tmp_path / "model.safetensors")
    assert changed.keys() <= tensors.keys()
    save_file(tensors | {name: torch.ones(sides) for name, sides in changed.items()}, tmp_path / "model.safetensors")
    messages = []
    for runtime in (Runtime("cpu", "int8"), INT8):
        with pytest.raises(BeitError) as raised:
            predictions(folder, runtime)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
