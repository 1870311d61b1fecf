"""Shape -> checkpoint folder with random weights: speed does not depend on their values."""

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from beitcli.bench.shapes import Shape

_SEED = 2106
_SPREAD = 0.02  # of the published checkpoints before training


def make_checkpoint(shape: Shape, folder: str) -> str:
    """Write config, weights and preprocessor like the Hub's `microsoft/beit-*`; return the folder.

    The same shape gives the same weights everywhere.
    """
    os.mkdir(folder)
    random = np.random.default_rng(_SEED)
    tensors = {name: _values(name, sides, random) for name, sides in _sides(shape)}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    for name, content in (("config.json", _config(shape)), ("preprocessor_config.json", _processor(shape))):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
    return folder


def _values(name: str, sides: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    if "layernorm" in name and name.endswith("weight"):
        return np.ones(sides, np.float32)
    if "lambda" in name:
        return np.full(sides, 0.1, np.float32)
    values = random.standard_normal(sides, np.float32)
    values *= _SPREAD
    return values


def _sides(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor's name and shape, as transformers writes them."""
    hidden, intermediate = shape.hidden, shape.intermediate
    yield "beit.embeddings.cls_token", (1, 1, hidden)
    yield "beit.embeddings.patch_embeddings.projection.weight", (hidden, 3, shape.patch, shape.patch)
    yield "beit.embeddings.patch_embeddings.projection.bias", (hidden,)
    distances = (2 * (shape.pixels // shape.patch) - 1) ** 2 + 3
    for index in range(shape.layers):
        layer = f"beit.encoder.layer.{index}."
        attention = layer + "attention.attention."
        yield attention + "relative_position_bias.relative_position_bias_table", (distances, shape.heads)
        yield attention + "key.weight", (hidden, hidden)  # BEiT's keys have no bias
        yield from _linear(attention + "query", hidden, hidden)
        yield from _linear(attention + "value", hidden, hidden)
        yield from _linear(layer + "attention.output.dense", hidden, hidden)
        yield from _linear(layer + "intermediate.dense", intermediate, hidden)
        yield from _linear(layer + "output.dense", hidden, intermediate)
        for name in ("layernorm_before.weight", "layernorm_before.bias", "layernorm_after.weight"):
            yield layer + name, (hidden,)
        for name in ("layernorm_after.bias", "lambda_1", "lambda_2"):
            yield layer + name, (hidden,)
    yield "beit.pooler.layernorm.weight", (hidden,)
    yield "beit.pooler.layernorm.bias", (hidden,)
    yield from _linear("classifier", shape.labels, hidden)


def _linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def _config(shape: Shape) -> dict[str, Any]:
    labels = [f"class {index}" for index in range(shape.labels)]
    return {
        "architectures": ["BeitForImageClassification"],
        "model_type": "beit",
        "dtype": "float32",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "layer_scale_init_value": 0.1,
        "image_size": shape.pixels,
        "patch_size": shape.patch,
        "num_channels": 3,
        "use_absolute_position_embeddings": False,
        "use_mask_token": False,
        "use_mean_pooling": True,
        "use_relative_position_bias": True,
        "use_shared_relative_position_bias": False,
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _processor(shape: Shape) -> dict[str, Any]:
    square = {"height": shape.pixels, "width": shape.pixels}
    return {
        "image_processor_type": "BeitImageProcessor",
        "do_resize": True,
        "size": square,
        "resample": 2,
        "do_center_crop": False,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
