"""Features from the middle of a network."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import BeitConfig, BeitModel

from beitcli.errors import UsageError
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.encoder import Encoder
from beitcli.model.features import Encoding, Pool
from beitcli.model.preprocessing import checkpoint_preprocessing
from beitcli.model.runtime import Runtime
from beitcli.model.truncation import truncated


@pytest.fixture(params=[True, False], ids=["mean pooling", "first state"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, tiny_beit: Path) -> Checkpoint:
    torch.manual_seed(3)
    config = json.loads((tiny_beit / "config.json").read_text())
    config |= {"use_mean_pooling": request.param, "num_hidden_layers": 3}
    network = BeitModel(BeitConfig.from_dict(config))
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    network.save_pretrained(tmp_path)
    shutil.copy(tiny_beit / "preprocessor_config.json", tmp_path)
    return open_checkpoint(str(tmp_path), None)


PIXELS = torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def features(checkpoint: Checkpoint, pool: Pool, layer: Any = None) -> "np.ndarray[Any, Any]":
    part = truncated(checkpoint, layer) if isinstance(layer, int) else checkpoint
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    encoder = Encoder(part, preprocessing, Runtime("cpu", "fp32"), Encoding(pool, layer=layer))
    return np.stack(encoder(PIXELS))


def states(checkpoint: Checkpoint, layer: int) -> torch.Tensor:
    """The states behind a layer, by transformers."""
    network = BeitModel.from_pretrained(checkpoint.folder).eval()
    found: list[torch.Tensor] = []
    network.layers[layer - 1].register_forward_hook(lambda _module, _inputs, output: found.append(output))
    with torch.no_grad():
        network(pixel_values=PIXELS.permute(0, 3, 1, 2).float() / 127.5 - 1)
    return found[0]


@pytest.mark.parametrize("layer", [1, 2])
def test_features_behind_a_layer_are_its_states_standardised(checkpoint: Checkpoint, layer: int) -> None:
    behind = states(checkpoint, layer)
    mean_first = checkpoint.config["use_mean_pooling"]
    patches = behind[:, 1:] if mean_first else F.layer_norm(behind, behind.shape[-1:])[:, 1:]
    mean = F.layer_norm(patches.mean(1), patches.shape[-1:]) if mean_first else patches.mean(1)
    assert np.allclose(features(checkpoint, "patches", layer), patches, atol=1e-4)
    assert np.allclose(features(checkpoint, "mean", layer), mean, atol=1e-4)


def test_the_last_layer_is_the_whole_network_and_others_do_not_exist(checkpoint: Checkpoint) -> None:
    assert truncated(checkpoint, 3) is checkpoint
    for layer in (0, 4):
        with pytest.raises(UsageError, match=rf"`layer={layer}`: .* has 3 layers"):
            truncated(checkpoint, layer)


def test_all_layers_at_once_are_the_layers_one_by_one(checkpoint: Checkpoint) -> None:
    pool: Pool = "mean" if checkpoint.config["use_mean_pooling"] else "cls"
    every = features(checkpoint, pool, "all")
    assert every.shape == (4, 3, 32)
    for layer in (1, 2, 3):
        assert np.allclose(every[:, layer - 1], features(checkpoint, pool, layer), atol=1e-5)
