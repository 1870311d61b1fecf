"""DALL-E's image encoder (OpenAI, arXiv:2102.12092), whose tokens the paper's BEiTs have learnt to predict."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.models.flava.configuration_flava import FlavaImageCodebookConfig
from transformers.models.flava.modeling_flava import FlavaImageCodebook

from beitcli.errors import ModelError, UsageError, first_line
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.weights import is_finite, not_finite
from beitcli.records import printable
from beitcli.training.pretraining.tokenizers.protocol import digest_of_tensors, save_tokenizer
from beitcli.training.pretraining.tokenizers.unpickling import load_inert, tensors_of

KIND = "dalle"

HUB_ID = "facebook/flava-image-codebook"
"""DALL-E's encoder as tensors, on the Hub."""

_ROOT = "dall_e.encoder.Encoder"
_ARCHITECTURE = "flava_image_codebook"
_EPSILON = 0.1  # of `map_pixels` in OpenAI's code

_HINT = "`tokenizer=kmeans` fits a codebook to your own images, and needs no download"


@dataclass(frozen=True, slots=True)
class DalleTokenizer:
    """DALL-E's encoder, in float32; `source` is where it is from, `digest` that of its tensors."""

    encoder: FlavaImageCodebook
    source: str
    digest: str

    @property
    def vocabulary(self) -> int:
        return int(self.encoder.config.vocab_size)

    @property
    def grid(self) -> None:
        return None

    @property
    def pixels_a_patch(self) -> int:
        return 8

    @property
    def description(self) -> str:
        return f"those of DALL-E's encoder (`{printable(self.source)}`, digest {self.digest})"

    def to(self, device: str) -> "DalleTokenizer":
        return DalleTokenizer(self.encoder.to(device), self.source, self.digest)

    def __call__(self, views: Tensor) -> Tensor:
        mapped = (1 - 2 * _EPSILON) * views + _EPSILON
        tokens: Tensor = self.encoder.get_codebook_indices(mapped).flatten(1)
        return tokens

    def save(self, path: str) -> None:
        """Write the place of the encoder, not its 215 MB."""
        save_tokenizer(path, {}, kind=KIND, source=self.source, digest=self.digest)


def encoder_from(_tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> DalleTokenizer:
    """The tokenizer that `save` described. Raises UsageError if the encoder there is another one by now."""
    tokenizer = open_encoder(facts["source"])
    if tokenizer.digest != facts["digest"]:
        raise UsageError(f"`{printable(facts['source'])}` is no longer the encoder of that model")
    return tokenizer


def open_encoder(source: str) -> DalleTokenizer:
    """The encoder of a Hub id, a folder of a `FlavaImageCodebook`, or OpenAI's `encoder.pkl`.

    Raises UsageError where it is none, ModelError where it cannot be read or reached.
    """
    tensors = _pickled(source) if os.path.isfile(source) else _saved(source)
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise not_finite(name)
    try:
        encoder = FlavaImageCodebook(_config(tensors)).eval()
        encoder.load_state_dict(tensors)
    except (LookupError, ValueError, RuntimeError) as error:
        raise _no_encoder(source, first_line(error)) from error
    location = os.path.abspath(source) if os.path.exists(source) else source
    return DalleTokenizer(encoder, location, digest_of_tensors(tensors))


def _saved(source: str) -> dict[str, Tensor]:
    try:
        checkpoint = open_checkpoint(source, None)
        tensors = _codebook(checkpoint)
    except ModelError as error:
        raise ModelError(str(error), _HINT) from error
    return {name: tensor.float() for name, tensor in tensors.items()}


def _codebook(checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    if checkpoint.config.get("model_type") != _ARCHITECTURE:
        raise _no_encoder(checkpoint.name, f"its model_type is {checkpoint.config.get('model_type')}")
    return checkpoint.tensors()


def _pickled(path: str) -> dict[str, Tensor]:
    """The tensors of OpenAI's `encoder.pkl`, a pickled module, by their names in a `FlavaImageCodebook`."""
    try:
        root = load_inert(path)
    except OSError as error:
        raise ModelError(f"cannot read `{printable(path)}`: {error.strerror}", _HINT) from error
    except Exception as error:  # of a damaged or hostile pickle, anything
        raise _no_encoder(path, first_line(error)) from error
    if root.path != _ROOT:
        raise _no_encoder(path, f"a pickle of {root.path}")
    return {_renamed(name): tensor.float() for name, tensor in tensors_of(root)}


def _renamed(name: str) -> str:
    """As `convert_dalle_to_flava_codebook.py` of transformers renames the parameters."""
    name = re.sub(r"\b(group_\d+)\.", r"\1.group.", name).replace("res_path.", "res_path.path.")
    return re.sub(r"\.b$", ".bias", re.sub(r"\.w$", ".weight", name))


def _config(tensors: Mapping[str, Tensor]) -> FlavaImageCodebookConfig:
    """The shape that the tensors have."""
    blocks = {found[1] for name in tensors if (found := re.match(r"blocks\.group_1\.group\.block_(\d+)\.", name))}
    return FlavaImageCodebookConfig(
        num_blocks_per_group=len(blocks),
        hidden_size=len(tensors["blocks.input.weight"]),
        vocab_size=len(tensors["blocks.output.conv.weight"]),
    )


def _no_encoder(source: str, reason: str) -> UsageError:
    return UsageError(f"`{printable(source)}` is no DALL-E encoder: {reason}", _HINT)
