"""Checkpoint -> its facts for a person: network, size, preprocessing, weights, and the place of its files."""

import os
from collections.abc import Iterator

from beitcli.errors import ModelError
from beitcli.model.checkpoint import WEIGHT_FILES, Checkpoint


def describe(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Names and values of the facts. Nothing is downloaded, and the weights are not read."""
    repository, config = checkpoint.repository, checkpoint.config
    yield "model", checkpoint.name
    if repository.on_hub:
        yield "repository", f"{repository.location} at {repository.revision}"
    yield "folder", checkpoint.folder
    yield "network", _network(checkpoint)
    if "image_size" in config:
        yield "pixels", _text(config["image_size"])
    yield "preprocessing", _preprocessing(checkpoint)
    yield "weights", _weights(checkpoint)
    yield "labels", str(len(checkpoint.labels))


def _network(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    facts = [str(config.get("model_type", "of no known type"))]
    facts += [f"{config[key]} {name}" for key, name in _SIZES.items() if key in config]
    return ", ".join(facts)


_SIZES = {"num_hidden_layers": "layers", "hidden_size": "states", "num_attention_heads": "heads"}


def _preprocessing(checkpoint: Checkpoint) -> str:
    processor = checkpoint.processor or {}
    if not checkpoint.is_beit:
        return f"{processor.get('image_processor_type', 'an image processor')} of transformers"
    from PIL.Image import Resampling

    from beitcli.model.preprocessing import checkpoint_preprocessing

    try:
        found = checkpoint_preprocessing(checkpoint.processor, None)
    except ModelError as error:
        return str(error)
    crop = f", centre crop {_text(found.crop)}" if found.crop else ""
    scale = f", mean {_text(found.mean, ' ')}, standard deviation {_text(found.std, ' ')}"
    side = "shorter side " if isinstance(found.resize, int) else ""
    return f"{Resampling(found.resample).name.lower()} to {side}{_text(found.resize)}{crop}{scale}"


def _weights(checkpoint: Checkpoint) -> str:
    name = next(filter(checkpoint.repository.is_here, WEIGHT_FILES), None)
    if name is None:
        return "not downloaded" if checkpoint.repository.on_hub else "none"
    path = checkpoint.repository.file(name)
    size = os.path.getsize(path) if path else 0
    return (
        f"{name}, {size / 1e6:.1f} MB" if name.endswith((".safetensors", ".bin")) else f"in the files that {name} names"
    )


def _text(size: object, between: str = " x ") -> str:
    return between.join(f"{each:g}" for each in size) if isinstance(size, list | tuple) else str(size)
