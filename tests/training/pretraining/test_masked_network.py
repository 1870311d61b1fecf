"""The network of a pre-training: logits, loss and gradients are those of transformers."""

import copy
import random

import pytest
import torch
from torch.nn import functional as F
from transformers import BeitConfig, BeitForMaskedImageModeling

from beitcli.model.cpu.toolchain import compiler
from beitcli.training.pretraining.masked_network import MaskedBeit
from beitcli.training.pretraining.masks import PAPER_SHARE, masking_for

BIASES = {
    "shared": {"use_shared_relative_position_bias": True},
    "of each layer": {"use_relative_position_bias": True},
    "both": {"use_shared_relative_position_bias": True, "use_relative_position_bias": True},
}


def random_network(**settings: object) -> MaskedBeit:
    torch.manual_seed(0)
    config = BeitConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=4,
        vocab_size=50,
        use_mask_token=True,
        drop_path_rate=0.0,
        **settings,
    )
    network = MaskedBeit(config)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.2
    return network


@pytest.mark.parametrize("bias", BIASES)
def test_logits_loss_and_gradients_are_those_of_transformers(bias: str) -> None:
    network = random_network(**BIASES[bias])
    plain = BeitForMaskedImageModeling(network.config).train()
    plain.load_state_dict(network.state_dict())
    pixels, mask = torch.randn(6, 3, 32, 32), masking_for((8, 8), PAPER_SHARE).batch(6, random.Random(1))
    targets = torch.randint(50, (int(mask.sum()),))
    ours, theirs = network.train()(pixels, mask).logits, plain(pixels, mask, labels=targets)
    assert torch.allclose(ours, theirs.logits[mask], atol=1e-5)
    loss = F.cross_entropy(ours, targets)
    assert abs(loss.item() - theirs.loss.item()) < 1e-5
    loss.backward()
    theirs.loss.backward()
    expected = dict(plain.named_parameters())
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, expected[name].grad, atol=1e-5), name


def test_absolute_positions_are_added_too() -> None:
    network = random_network(use_absolute_position_embeddings=True, use_relative_position_bias=True)
    plain = BeitForMaskedImageModeling(network.config)
    plain.load_state_dict(network.state_dict())
    pixels, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 64) < 0.4
    assert torch.allclose(network(pixels, mask).logits, plain(pixels, mask).logits[mask], atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # from importing the compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # from the compiler
@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
def test_a_copy_of_a_compiled_network_evaluates_by_its_own_weights() -> None:
    network = random_network(use_relative_position_bias=True)
    pixels, mask = torch.randn(2, 3, 32, 32), torch.rand(2, 64) < 0.4
    expected = network.eval()(pixels, mask).logits
    network.compile_layers()
    assert torch.allclose(network.train()(pixels, mask).logits, expected, atol=1e-4)
    averaged = copy.deepcopy(network).eval()
    for parameter in network.parameters():
        parameter.data.zero_()
    assert torch.equal(averaged(pixels, mask).logits, expected)
