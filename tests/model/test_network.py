"""`Beit` gives the logits of transformers' `BeitForImageClassification`, whatever the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from beitcli.errors import ModelError
from beitcli.model.catalog import DEMO_FOLDER
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.network import ACTIVATIONS, Beit, PixelScale

HALF = PixelScale(1 / 255, (0.5,) * 3, (0.5,) * 3)
RELATIVE: dict[str, Any] = {"use_relative_position_bias": True}
SHARED: dict[str, Any] = {"use_shared_relative_position_bias": True}
ABSOLUTE: dict[str, Any] = {"use_absolute_position_embeddings": True}
CLS: dict[str, Any] = {"use_mean_pooling": False}


def case(name: str, size: int | tuple[int, int] = 32, scale: PixelScale = HALF, **config: Any) -> Any:
    return pytest.param((size, size) if isinstance(size, int) else size, scale, config, id=name)


CASES = [
    case("no positions"),
    case("relative", **RELATIVE),
    case("shared relative", **SHARED),
    case("absolute", **ABSOLUTE),
    case("all positions", **RELATIVE, **SHARED, **ABSOLUTE),
    case("CLS pooling", **RELATIVE, **CLS),
    case("CLS pooling, absolute", **ABSOLUTE, **CLS),
    case("no layer scale", **RELATIVE, layer_scale_init_value=0.0),
    case("mask token", **RELATIVE, use_mask_token=True),
    case("other epsilon", **RELATIVE, layer_norm_eps=0.1),
    *(
        case(f"{name} enlarged", 48, **on)
        for name, on in [("relative", RELATIVE), ("shared", SHARED), ("absolute", ABSOLUTE)]
    ),
    case("all positions shrunk", 16, **RELATIVE, **SHARED, **ABSOLUTE),
    case("wide", (32, 64), **RELATIVE, **ABSOLUTE),
    case("tall", (56, 24), **SHARED, **ABSOLUTE, **CLS),
    case("as many patches, not square", (16, 64), **RELATIVE, **ABSOLUTE),
    case("not a multiple of the patch", (44, 37), **RELATIVE, **ABSOLUTE),
    case("trained not square", (32, 48), **RELATIVE, image_size=[32, 48]),
    case("trained not square, enlarged", (48, 64), **RELATIVE, **SHARED, image_size=[32, 48]),
    case("pixels as they are", 32, PixelScale(1.0, (0.0,) * 3, (1.0,) * 3), **RELATIVE),
    case("each channel its own", 32, PixelScale(1 / 127.5, (0.4, 1.1, 0.8), (0.3, 0.2, 0.6)), **RELATIVE),
    *(case(activation, **RELATIVE, hidden_act=activation) for activation in ACTIVATIONS),
]


def reference_of(config: dict[str, Any]) -> Any:
    """A seeded classifier of transformers."""
    from transformers import BeitConfig, BeitForImageClassification

    torch.manual_seed(3)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    reference = BeitForImageClassification(
        BeitConfig(**{"image_size": 32, "patch_size": 8, "num_labels": 5, **small, **config})
    ).eval()
    for parameter in reference.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return reference


@pytest.mark.parametrize(("size", "scale", "config"), CASES)
def test_logits_are_those_of_transformers(
    size: tuple[int, int], scale: PixelScale, config: dict[str, Any], tmp_path: Path
) -> None:
    reference = reference_of(config)
    reference.save_pretrained(tmp_path)
    pixels = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8)

    checkpoint = open_checkpoint(str(tmp_path), None)
    network = Beit(checkpoint.config, checkpoint.tensors(), size, scale).eval()
    with torch.no_grad():
        normalised = (pixels.float() * scale.factor - torch.tensor(scale.mean)) / torch.tensor(scale.std)
        expected = reference(normalised.permute(0, 3, 1, 2)).logits
        logits = network(pixels)

    assert (expected[0] - expected[1]).abs().max() > 0.05
    assert (logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("alone", [True, False], ids=["BeitModel", "classifier"])
@pytest.mark.parametrize("config", [{}, RELATIVE, SHARED | ABSOLUTE, RELATIVE | CLS])
def test_features_are_those_of_transformers(config: dict[str, Any], alone: bool, tmp_path: Path) -> None:
    reference = reference_of(config)
    (reference.beit if alone else reference).save_pretrained(tmp_path)
    pixels = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    checkpoint = open_checkpoint(str(tmp_path), None)
    with torch.no_grad():
        states = reference.beit((pixels / 127.5 - 1).permute(0, 3, 1, 2))
        last = states.last_hidden_state
        expected = {"mean": states.pooler_output, "cls": last[:, 0], "patches": last[:, 1:]}
        if config == RELATIVE | CLS:  # there the pooler gives the first state
            expected["mean"] = last[:, 1:].mean(1)
        for output, values in expected.items():
            network = Beit(checkpoint.config, checkpoint.tensors(), (32, 32), HALF, output=output)  # type: ignore[arg-type]
            features = network.eval()(pixels)
            assert features.shape == values.shape
            assert (features - values).abs().max() < 1e-4 * values.abs().max()
            assert (values[0] - values[1]).abs().max() > 0.05


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    from transformers.activations import ACT2FN

    x = torch.linspace(-8, 8, 1001)
    assert torch.allclose(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def tiny(tiny_beit: Path) -> Checkpoint:
    return open_checkpoint(str(tiny_beit), None)


def beit(checkpoint: Checkpoint, tensors: dict[str, Tensor] | None = None, **config: Any) -> Beit:
    return Beit({**checkpoint.config, **config}, tensors or checkpoint.tensors(), (32, 32), HALF)


@pytest.mark.parametrize(
    "name",
    [
        "beit.embeddings.cls_token",
        "beit.embeddings.patch_embeddings.projection.weight",
        "beit.encoder.layer.1.attention.attention.key.weight",
        "beit.encoder.layer.1.attention.attention.relative_position_bias.relative_position_bias_table",
        "beit.encoder.layer.0.output.dense.bias",
        "beit.pooler.layernorm.bias",
        "classifier.weight",
    ],
)
def test_a_missing_tensor_is_named(name: str, tiny: Checkpoint) -> None:
    tensors = dict(tiny.tensors())
    del tensors[name]
    with pytest.raises(ModelError, match=f"`{name}`"):
        beit(tiny, tensors)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"num_channels": 4}, "4 channels", id="channels"),
        pytest.param({"hidden_act": "mish"}, "`mish`", id="activation"),
        pytest.param({"patch_size": [8, 4]}, r"\[8, 4\]", id="oblong patch"),
        pytest.param(
            {"use_absolute_position_embeddings": True}, "`beit.embeddings.position_embeddings`", id="absolute"
        ),
        pytest.param({"use_mean_pooling": False}, "`beit.layernorm.weight`", id="CLS pooling"),
        pytest.param({"num_hidden_layers": 3}, r"`beit.encoder.layer.2.\S+`", id="layers"),
        pytest.param({"image_size": 48}, r"`\S+relative_position_bias_table`", id="image size"),
        pytest.param({"patch_size": 4}, r"`\S+projection.weight`", id="patch"),
        pytest.param({"num_attention_heads": 4}, r"`\S+relative_position_bias_table`", id="heads"),
    ],
)
def test_a_config_that_the_weights_contradict(config: dict[str, Any], message: str, tiny: Checkpoint) -> None:
    with pytest.raises(ModelError, match=message):
        beit(tiny, **config)


def test_absolute_positions_of_another_size_are_named(tiny: Checkpoint) -> None:
    tensors = {**tiny.tensors(), "beit.embeddings.position_embeddings": torch.zeros(1, 26, 32)}
    with pytest.raises(ModelError, match=r"`beit\.embeddings\.position_embeddings`"):
        beit(tiny, tensors, use_absolute_position_embeddings=True)


@pytest.mark.parametrize(
    ("demo", "dtype"),
    [
        pytest.param(False, torch.float32, id="tiny fp32"),
        pytest.param(False, torch.bfloat16, id="tiny bf16"),
        pytest.param(False, torch.float16, id="tiny fp16"),
        pytest.param(True, torch.float32, id="demo fp32"),
        pytest.param(True, torch.bfloat16, id="demo bf16"),
    ],
)
def test_logits_depend_on_no_neighbour(demo: bool, dtype: torch.dtype, tiny: Checkpoint) -> None:
    network = beit(open_checkpoint(DEMO_FOLDER, None) if demo else tiny).to(dtype).eval()
    torch.manual_seed(5)
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    order = torch.randperm(8)
    padded = pixels.clone()
    padded[5:] = 0
    with torch.no_grad():
        logits = network(pixels)
        assert torch.equal(network(pixels[order]), logits[order])
        assert torch.equal(network(padded)[:5], logits[:5])
    assert len(logits.unique(dim=0)) == 8


def test_the_patch_projection_in_bf16_errs_by_little_more_than_its_rounded_output(tiny: Checkpoint) -> None:
    """Its weights are rounded, too; beside bytes from 0 to 255 that would cost four times as much."""
    noise = torch.randn(9, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    pixels = (128 + 40 * noise).clamp(0, 255).to(torch.uint8)
    config = {**tiny.config, "num_hidden_layers": 0}
    with torch.no_grad():
        exact, rounded = (
            Beit(config, tiny.tensors(), (32, 32), HALF, dtype, "patches").eval()(pixels).float()
            for dtype in (torch.float32, torch.bfloat16)
        )
    assert (exact - rounded).norm() < 0.004 * exact.norm()
