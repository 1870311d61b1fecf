"""Initial attention weights."""

import torch

from beitcli.model.runtime import Runtime
from beitcli.training.recipes.patch_dropout import DroppingBeit
from beitcli.training.recipes.recipe import Length
from beitcli.training.recipes.scratch import ScratchPlan


def new_network(seed: int) -> DroppingBeit:
    plan = ScratchPlan("tiny", 32, 4, 1, 1, 1, 1e-3, seed, "fp32")
    network = plan.method(("a", "b"), Runtime("cpu", "fp32"), Length(1, 1)).network
    assert isinstance(network, DroppingBeit)
    return network


def test_the_heads_attend_to_the_nine_nearest_patches() -> None:
    seen = set()
    biases = new_network(0)._bias(torch.arange(64)[None])[:, 0].flatten(0, 1)  # (layers * heads, tokens, tokens)
    middle = 8 * 4 + 4
    for weights in biases[:, 1 + middle].softmax(-1):
        row, column = divmod(int(weights.argmax()) - 1, 8)
        seen.add((row - 4, column - 4))
        assert 0.1 < weights.max() < 0.2
        assert weights[0] < 1e-3  # the start token
    assert seen == {(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)}


def test_value_and_output_projections_are_noise_minus_identity() -> None:
    for layer in new_network(0).beit.layers:
        product = layer.attention.o_proj.weight @ layer.attention.v_proj.weight
        noise = product + 0.4 * torch.eye(len(product))
        assert abs(noise.diagonal().mean()) < 0.02
        assert 0.38 < noise.std() * len(product) ** 0.5 < 0.42


def test_initial_weights_depend_on_the_seed() -> None:
    first, again, other = (new_network(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    name = "beit.layers.0.attention.o_proj.weight"
    assert not torch.equal(first[name], other[name])
