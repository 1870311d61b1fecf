"""Networks in training agree with transformers and with the network at inference."""

import copy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel
from transformers import BeitConfig, BeitForImageClassification

from beitcli.errors import ModelError
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.network import Beit, PixelScale
from beitcli.model.runtime import Runtime
from beitcli.training.loop import _moving_average
from beitcli.training.processor import processor_of
from beitcli.training.recipes.finetune import FinetunePlan, adapted_network, check_weights
from beitcli.training.recipes.optimizers import layer_wise_adamw, muon_and_adamw
from beitcli.training.recipes.patch_dropout import DroppingBeit
from beitcli.training.recipes.recipe import Length
from beitcli.training.recipes.scratch import WORTH_COMPILING, ScratchPlan

PLAN = ScratchPlan("tiny", 16, 4, 1, 1, 1, 1e-3, 0, "fp32")


def new_network() -> DroppingBeit:
    network = PLAN.method(("a", "b", "c"), Runtime("cpu", "fp32"), Length(1, 1)).network
    assert isinstance(network, DroppingBeit)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    without_stochastic_depth(network)
    return network


def without_stochastic_depth(network: BeitForImageClassification) -> None:
    for layer in network.beit.layers:
        layer.drop_path = torch.nn.Identity()


def test_the_training_pass_agrees_with_transformers() -> None:
    network = new_network()
    plain = BeitForImageClassification(network.config)
    plain.load_state_dict(network.state_dict())
    without_stochastic_depth(plain)
    pixels = torch.randn(16, 3, 16, 16)
    ours, theirs = (each.train()(pixels).logits for each in (network, plain))
    assert torch.allclose(ours, theirs, atol=1e-4)
    for logits in (ours, theirs):
        logits.square().sum().backward()
    expected = dict(plain.named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, rtol=1e-3, atol=1e-3), name


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # from importing the compiler
@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("device", "compiled"), [("cpu", True), ("meta", False)])
def test_layers_are_compiled_on_cpus_only(device: str, compiled: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    PLAN.method(("a", "b", "c"), Runtime(device, "fp32"), Length(WORTH_COMPILING, 1))
    assert ("compiling" in caplog.text) == compiled


def test_dropped_patches_have_no_effect() -> None:
    """With one of sixteen patches kept in each group of the batch, changes to the others leave the logits the same."""
    network = new_network().train()
    pixels = torch.randn(16, 3, 16, 16)
    changed = [pixels.clone() for _ in range(16)]
    for number, other in enumerate(changed):
        y, x = divmod(number, 4)
        other[:, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 0.0
    with torch.no_grad():
        logits = []
        for batch in (pixels, *changed):
            torch.manual_seed(5)
            logits.append(network(batch, drop=15 / 16).logits)
    same = torch.stack([torch.isclose(logits[0], other).all(1) for other in logits[1:]])
    assert (same.sum(0) == 15).all()
    assert torch.equal(same[:, 0], same[:, 1])  # two images are a group


def test_absolute_positions_are_interpolated_as_at_inference(tmp_path: Path) -> None:
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 2}
    source = BeitForImageClassification(
        BeitConfig(**shape, image_size=32, patch_size=8, use_absolute_position_embeddings=True)
    )
    for parameter in source.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    source.save_pretrained(tmp_path)
    processor_of(PLAN.preprocessing).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path), None)
    network = adapted_network(checkpoint, checkpoint.labels, 48, 0.1, seed=0).eval()
    assert network.config.image_size == 48
    pixels = torch.randint(0, 256, (4, 48, 48, 3), dtype=torch.uint8)
    scale = PixelScale(1 / 255, (0.5,) * 3, (0.5,) * 3)
    inference = Beit(checkpoint.config, checkpoint.tensors(), (48, 48), scale).eval()
    with torch.no_grad():
        ours = network(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).logits
        assert torch.allclose(ours, inference(pixels), atol=1e-4)


def test_other_classes_get_a_new_head_from_the_seed(tiny_beit: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_beit), None)
    others = tuple(reversed(checkpoint.labels))
    first, again, other = (adapted_network(checkpoint, others, 32, 0.1, seed).state_dict() for seed in (0, 0, 1))
    kept = adapted_network(checkpoint, checkpoint.labels, 32, 0.1, 0).state_dict()
    head = "classifier.weight"
    assert torch.equal(first[head], again[head])
    assert not torch.equal(first[head], other[head])
    assert first[head].abs().max() < 1e-4 < kept[head].abs().max()
    body = [name for name in kept if not name.startswith("classifier.")]
    assert all(torch.equal(first[name], kept[name]) for name in body)


@pytest.mark.parametrize("name", ["beit.encoder.layer.1.output.dense.bias", "classifier.weight"])
def test_weights_that_are_not_finite_are_named_before_the_training(tiny_beit: Path, tmp_path: Path, name: str) -> None:
    path = shutil.copytree(tiny_beit, tmp_path / "broken") / "model.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[3] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    checkpoint = open_checkpoint(str(tmp_path / "broken"), None)
    with pytest.raises(ModelError, match=f"the weights are not finite: `{name}` has infinities or NaN"):
        check_weights(checkpoint, checkpoint.labels)
    if name.startswith("classifier."):
        check_weights(checkpoint, ("a", "b"))  # the head is a new one


def test_layers_further_from_the_head_have_lower_rates(tiny_beit: Path) -> None:
    network = adapted_network(open_checkpoint(str(tiny_beit), None), ("a", "b"), 32, 0.1, 0)
    rates = {
        id(parameter): (round(group["lr"], 6), group["weight_decay"])
        for group in layer_wise_adamw(network, 2, 1.0, 0.05, 0.5).param_groups
        for parameter in group["params"]
    }
    assert {name: rates[id(parameter)] for name, parameter in network.named_parameters()}.items() >= {
        "beit.embeddings.cls_token": (0.125, 0.0),
        "beit.embeddings.patch_embeddings.projection.weight": (0.125, 0.05),
        "beit.layers.0.attention.q_proj.weight": (0.25, 0.05),
        "beit.layers.1.attention.q_proj.bias": (0.5, 0.0),
        "classifier.weight": (1.0, 0.05),
    }.items()


@pytest.mark.parametrize(
    ("layers", "rate", "decay", "depth", "warmup"), [(2, 4e-3, 0.65, 0.1, 20), (24, 1e-3, 0.75, 0.2, 10)]
)
def test_the_recipe_for_each_size_is_that_of_the_papers_code(
    layers: int, rate: float, decay: float, depth: float, warmup: int, tmp_path: Path
) -> None:
    shape = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 16, "patch_size": 8}
    BeitForImageClassification(BeitConfig(**shape, num_hidden_layers=layers)).save_pretrained(tmp_path)
    processor_of(PLAN.preprocessing).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path), None)
    plan = FinetunePlan(
        checkpoint, 16, 1, 64, accumulate=8, rate=None, checkpoint_gradients=False, seed=0, dtype="fp32"
    )
    method = plan.method(("a", "b", "c"), Runtime("cpu", "fp32"), Length(100, 512))
    assert (method.network.config.drop_path_rate, method.schedule.warmup_steps) == (depth, warmup)
    dropped = [layer.drop_path.drop_prob for layer in method.network.beit.layers[1:]]
    assert dropped[-1] == pytest.approx(depth) and dropped == sorted(dropped)
    rates = {group["lr"] for group in method.optimizer.param_groups}
    assert (max(rates), min(rates)) == pytest.approx((rate / 2, rate / 2 * decay ** (layers + 1)))


def test_averaged_weights_forget_the_initial_weights() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    averaged = AveragedModel(network, multi_avg_fn=_moving_average(0.9))
    expected = 0.0
    for step in range(60):
        torch.nn.init.constant_(network.weight, float(step))
        averaged.update_parameters(network)
        share = 1.0 if step == 0 else 1 - min(0.9, (1 + step) / (10 + step))
        expected += share * (step - expected)
    assert next(averaged.parameters()).item() == pytest.approx(expected)
    assert 52 < expected < 54  # six steps behind: the decay has not grown to 0.9 yet


def test_the_position_bias_has_a_higher_rate_and_no_decay() -> None:
    network = new_network()
    groups = muon_and_adamw(network, 1e-3, 0.05, torch.float32).param_groups
    settings = {id(each): (group["lr"], group["weight_decay"]) for group in groups for each in group["params"]}
    assert len(settings) == len(list(network.parameters()))
    layer = network.beit.layers[0]
    assert settings[id(layer.relative_position_bias.relative_position_bias_table)] == (5e-3, 0.0)
    assert settings[id(layer.attention.q_proj.weight)] == (1e-3, 0.05)
    assert settings[id(network.classifier.weight)] == (1e-3, 0.05)
    assert settings[id(network.beit.embeddings.patch_embeddings.projection.weight)] == (1e-3, 0.05)
    assert settings[id(layer.lambda_1)] == settings[id(network.beit.embeddings.cls_token)] == (1e-3, 0.0)


def test_two_optimizers_are_saved_and_loaded_as_one() -> None:
    network, other = new_network(), new_network()
    other.load_state_dict(network.state_dict())
    optimizer, fresh = (muon_and_adamw(each, 1e-2, 0.05, torch.float32) for each in (network, other))

    def step(each: DroppingBeit, by: torch.optim.Optimizer) -> None:
        torch.manual_seed(1)
        each.zero_grad()
        each.train()(torch.randn(8, 3, 16, 16)).logits.square().sum().backward()
        by.step()

    step(network, optimizer)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.load_state_dict(network.state_dict())
    for each, by in ((network, optimizer), (other, fresh)):
        for group in by.param_groups:
            group["lr"] = 1e-3
        step(each, by)
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
