"""BEiT with masked patches: the logits of their visual tokens, and a compiled forward pass."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BeitForMaskedImageModeling
from transformers.modeling_outputs import MaskedLMOutput
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

from beitcli.training.recipes.layers import cut, run_layer

log = logging.getLogger(__name__)


class MaskedBeit(BeitForMaskedImageModeling):  # type: ignore[misc]
    """`BeitForMaskedImageModeling` with relative position bias, in the same arithmetic, but for masked patches alone.

    The head takes most of a small network's time where all patches get the logits of all tokens.
    """

    _compiled: Callable[..., Tensor] | None = None

    def compile_layers(self) -> None:
        """Compile the layers for training; copies of the network, as for averages, do not evaluate by them."""
        log.info("compiling the layers in the first step takes about a minute", extra={"stage": "compiling"})
        self._compiled = torch.compile(self._run_layers, dynamic=False)

    def forward(self, pixel_values: Tensor, mask: Tensor) -> MaskedLMOutput:
        """Logits (masked, vocabulary) of normalised pixels (n, 3, height, width) under a `mask` (n, patches) of bool.

        The masked patches of the first image come first, in the order of rows.
        """
        run = self._compiled if self._compiled is not None and self.training else self._run_layers
        states = run(cut(pixel_values, self.config.patch_size), mask, self._bias())
        return MaskedLMOutput(logits=self.lm_head(self.layernorm(states[:, 1:][mask])))

    def _bias(self) -> Tensor:
        """Position bias of all tokens: (layers, heads, tokens, tokens)."""
        shared = self.beit.shared_position_bias
        own = [layer.relative_position_bias for layer in self.beit.layers]
        tables = [sum(bias.relative_position_bias_table for bias in (shared, each) if bias is not None) for each in own]
        window = (shared or own[0]).window_size
        index = BeitRelativePositionBias.generate_relative_position_index(window).to(self.device)
        distinct = tables if own[0] is not None else tables[:1]
        gathered = torch.cat(distinct, dim=1).index_select(0, index.flatten())
        biases: Tensor = gathered.view(*index.shape, len(distinct), -1).permute(2, 3, 0, 1).contiguous()
        return biases.expand(len(own), -1, -1, -1)

    def _run_layers(self, patches: Tensor, mask: Tensor, biases: Tensor) -> Tensor:
        embeddings = self.beit.embeddings
        projection = embeddings.patch_embeddings.projection
        x = F.linear(patches, projection.weight.flatten(1), projection.bias)
        x = torch.where(mask[:, :, None], embeddings.mask_token.to(x.dtype), x)
        x = torch.cat((embeddings.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        if embeddings.position_embeddings is not None:
            x = x + embeddings.position_embeddings
        for layer, bias in zip(self.beit.layers, biases, strict=True):
            x = run_layer(layer, x, bias[None])
        return x
