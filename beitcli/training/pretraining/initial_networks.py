"""Networks at the beginning of a pre-training: of random weights, or a checkpoint's."""

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import BeitConfig, BeitForMaskedImageModeling

from beitcli.errors import ModelError
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.weights import is_finite, not_finite, weight_errors
from beitcli.training.pretraining.masked_network import MaskedBeit
from beitcli.training.recipes.finetune import resized_weights
from beitcli.training.recipes.initialization import init_attention
from beitcli.training.recipes.sizes import SCRATCH_SHAPES, ScratchShape

SHAPES = {**SCRATCH_SHAPES, "base": ScratchShape(768, 12, 12), "large": ScratchShape(1024, 24, 16)}
"""Model sizes for a pre-training; `base` and `large` are the paper's."""

STD = 0.02
"""Deviation of the paper's initial weights, at which its code also cuts them."""

_NEW = ("beit.embeddings.mask_token", "layernorm.", "lm_head.")
"""Parameters that a checkpoint may lack: a classifier has no mask token and no head for visual tokens."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sides of the images and of their patches, in pixels."""

    image: int
    patch: int

    @property
    def grid(self) -> int:
        """The number of patches in a row and in a column."""
        return self.image // self.patch


def shape_of_encoder(checkpoint: Checkpoint) -> ScratchShape:
    """Width, depth and heads of a checkpoint's network."""
    defaults = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    return ScratchShape(*(int(checkpoint.config.get(name, default)) for name, default in defaults.items()))


def new_network(
    shape: ScratchShape, geometry: Geometry, vocabulary: int, stochastic_depth: float, layer_scale: float, seed: int
) -> MaskedBeit:
    """A network of this shape, begun as the paper's code does it, or a narrow one as a training from scratch.

    The paper's networks share one table of position bias, as on the Hub; the heads of a narrow one start at the nearest
    patches, each layer with a table of its own.
    """
    torch.manual_seed(seed)
    config = BeitConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        image_size=geometry.image,
        patch_size=geometry.patch,
        vocab_size=vocabulary,
        use_mask_token=True,
        use_relative_position_bias=shape.is_narrow,
        use_shared_relative_position_bias=not shape.is_narrow,
        use_mean_pooling=True,
        layer_scale_init_value=layer_scale,
        drop_path_rate=stochastic_depth,
    )
    network = MaskedBeit(config)
    if shape.is_narrow:
        init_attention(network)
    else:
        init_as_published(network)
    return network


@torch.no_grad()
def init_as_published(network: MaskedBeit) -> None:
    """Initialise as `modeling_pretrain.py` of the paper's code (unilm/beit).

    Matrices, the start and the mask token are normal, cut at one deviation; the outputs of attention and feed-forward
    layers are divided by the square root of twice the number of their layer, from 1; biases and tables are 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=STD, a=-STD, b=STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for token in (network.beit.embeddings.cls_token, network.beit.embeddings.mask_token):
        nn.init.trunc_normal_(token, std=STD, a=-STD, b=STD)
    for number, layer in enumerate(network.beit.layers, start=1):
        for linear in (layer.attention.o_proj, layer.mlp.fc2):
            linear.weight.div_(math.sqrt(2 * number))


def continued_network(
    checkpoint: Checkpoint, side: int, vocabulary: int, stochastic_depth: float, keeps_head: bool, seed: int
) -> MaskedBeit:
    """The checkpoint's network for images of this side; its position bias is interpolated as for fine-tuning.

    The head is a new one from the seed, unless it is kept. Raises ModelError where weights are missing or not finite.
    """
    path = checkpoint.weight_file()
    with weight_errors(path):
        source, loading = BeitForMaskedImageModeling.from_pretrained(
            checkpoint.folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
            use_mask_token=True,
            use_mean_pooling=True,
        )
    lacking = sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])})
    missing = [name for name in lacking if not name.startswith(_NEW)]
    if missing:
        raise ModelError(f"`{checkpoint.name}` has no `{missing[0]}` of the shape that its config gives")
    config = copy.deepcopy(source.config)
    config.image_size, config.drop_path_rate, config.vocab_size = side, stochastic_depth, vocabulary
    torch.manual_seed(seed)
    network = MaskedBeit(config)
    renewed = (*lacking, *(() if keeps_head else ("lm_head.weight", "lm_head.bias")))
    kept = {name: value for name, value in source.state_dict().items() if name not in renewed}
    for name, value in kept.items():
        if not is_finite(value):
            raise not_finite(name)
    network.load_state_dict({**network.state_dict(), **resized_weights(kept, checkpoint, side)})
    return network
