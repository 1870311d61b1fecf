"""BEiT for training from random weights: patch dropout, and a compiled forward pass."""

import logging

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BeitForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

from beitcli.training.recipes.layers import cut, run_layer

log = logging.getLogger(__name__)

GROUPS = 8
"""Groups of a batch that keep different patches: a choice per image would be slow, one for all trains worse."""


class DroppingBeit(BeitForImageClassification):  # type: ignore[misc]
    """`BeitForImageClassification` with relative position bias, mean pooling, and PatchDropout (arXiv:2208.07220).

    In training, dropped patches do not enter the layers. Attention is plain matrix products: torch's fused kernel is
    slow where the bias needs a gradient. Otherwise, and in evaluation, the arithmetic is that of transformers.
    """

    def compile_layers(self) -> None:
        """Compile the layers, once for each number of tokens."""
        log.info(
            "compiling the layers in the first step takes about a minute, and once more when no patches are dropped",
            extra={"stage": "compiling"},
        )
        self._run_layers = torch.compile(self._run_layers, dynamic=False)  # type: ignore[method-assign]

    def forward(self, pixel_values: Tensor, drop: float = 0.0, **settings: object) -> ImageClassifierOutput:
        """Logits of normalised pixels (n, 3, height, width); in training, a share `drop` of the patches is dropped."""
        if not self.training:
            return super().forward(pixel_values, **settings)
        patches = cut(pixel_values, self.config.patch_size)
        groups = GROUPS if drop and len(patches) % GROUPS == 0 else 1
        count = patches.shape[1]
        kept = torch.rand(groups, count).argsort(1)[:, : max(1, round(count * (1 - drop)))].sort(1).values
        logits = self._run_layers(_select(patches, kept), self._bias(kept).to(patches.device))
        return ImageClassifierOutput(logits=logits)

    def _bias(self, kept: Tensor) -> Tensor:
        """Position bias of the kept tokens: (layers, groups, heads, tokens, tokens)."""
        tables = [layer.relative_position_bias for layer in self.beit.layers]
        index = BeitRelativePositionBias.generate_relative_position_index(tables[0].window_size)
        tokens = F.pad(kept + 1, (1, 0))
        chosen = index[tokens[:, :, None], tokens[:, None, :]]
        table = torch.cat([bias.relative_position_bias_table for bias in tables], dim=1)
        gathered: Tensor = table.index_select(0, chosen.flatten().to(table.device))
        return gathered.view(*chosen.shape, len(tables), -1).permute(3, 0, 4, 1, 2).contiguous()

    def _run_layers(self, patches: Tensor, bias: Tensor) -> Tensor:
        projection = self.beit.embeddings.patch_embeddings.projection
        x = F.linear(patches, projection.weight.flatten(1), projection.bias)
        x = torch.cat((self.beit.embeddings.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        for layer, added in zip(self.beit.layers, bias, strict=True):
            x = run_layer(layer, x, added)
        logits: Tensor = self.classifier(self.beit.pooler(x))
        return logits


def _select(patches: Tensor, kept: Tensor) -> Tensor:
    """The kept patches; row i of `kept` (groups, k) is for the i-th consecutive part of the batch."""
    count, _, width = patches.shape
    index = kept.to(patches.device).repeat_interleave(count // len(kept), dim=0)
    return patches.gather(1, index[:, :, None].expand(-1, -1, width))
