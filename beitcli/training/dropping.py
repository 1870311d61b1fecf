"""A BEiT to be trained from random weights: patches dropped at random, and a forward pass that is compiled."""

import logging

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BeitForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.beit.modeling_beit import BeitLayer, BeitRelativePositionBias

log = logging.getLogger(__name__)

GROUPS = 8
"""Parts of a batch that keep different patches: a choice for each picture would be slow, one for all learns less."""


class DroppingBeit(BeitForImageClassification):  # type: ignore[misc]
    """`BeitForImageClassification` with relative position bias and mean pooling, whose training pass is its own.

    Some of the patches may be left out, as PatchDropout does (arXiv:2208.07220): that many tokens less go through the
    layers. Attention is plain products: torch's fused kernel is slow where the bias wants a gradient. Otherwise, and
    without training, the arithmetic is that of transformers.
    """

    def compile_layers(self) -> None:
        """From now on the layers run compiled, for each number of tokens anew."""
        log.info(
            "compiling the layers in the first step takes about a minute, and once more when no patches are dropped"
        )
        self._through_layers = torch.compile(self._through_layers, dynamic=False)  # type: ignore[method-assign]

    def forward(self, pixel_values: Tensor, drop: float = 0.0, **settings: object) -> ImageClassifierOutput:
        """Logits of normalised pixels (n, 3, height, width), a share `drop` of whose patches is not looked at."""
        if not self.training:
            return super().forward(pixel_values, **settings)
        patches = self._patches(pixel_values)
        groups = GROUPS if drop and len(patches) % GROUPS == 0 else 1
        count = patches.shape[1]
        kept = torch.rand(groups, count).argsort(1)[:, : max(1, round(count * (1 - drop)))].sort(1).values
        logits = self._through_layers(_chosen(patches, kept), self._bias(kept).to(patches.device))
        return ImageClassifierOutput(logits=logits)

    def _patches(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) to (n, patches, 3 * patch * patch), in the order of the projection's weights."""
        patch = self.config.patch_size
        return F.unfold(pixels, patch, stride=patch).transpose(1, 2)

    def _bias(self, kept: Tensor) -> Tensor:
        """What attention adds between the kept tokens: (layers, groups, heads, tokens, tokens)."""
        tables = [layer.relative_position_bias for layer in self.beit.layers]
        index = BeitRelativePositionBias.generate_relative_position_index(tables[0].window_size)
        tokens = F.pad(kept + 1, (1, 0))
        chosen = index[tokens[:, :, None], tokens[:, None, :]]
        table = torch.cat([bias.relative_position_bias_table for bias in tables], dim=1)
        gathered: Tensor = table.index_select(0, chosen.flatten().to(table.device))
        return gathered.view(*chosen.shape, len(tables), -1).permute(3, 0, 4, 1, 2).contiguous()

    def _through_layers(self, patches: Tensor, bias: Tensor) -> Tensor:
        projection = self.beit.embeddings.patch_embeddings.projection
        x = F.linear(patches, projection.weight.flatten(1), projection.bias)
        x = torch.cat((self.beit.embeddings.cls_token.expand(len(x), -1, -1).to(x.dtype), x), dim=1)
        for layer, added in zip(self.beit.layers, bias, strict=True):
            x = _through(layer, x, added)
        logits: Tensor = self.classifier(self.beit.pooler(x))
        return logits


def _chosen(patches: Tensor, kept: Tensor) -> Tensor:
    """The kept patches: `kept` (groups, k) holds for consecutive parts of the batch."""
    count, _, width = patches.shape
    index = kept.to(patches.device).repeat_interleave(count // len(kept), dim=0)
    return patches.gather(1, index[:, :, None].expand(-1, -1, width))


def _through(layer: BeitLayer, x: Tensor, bias: Tensor) -> Tensor:
    x = x + layer.drop_path(layer.lambda_1 * _attended(layer, layer.layernorm_before(x), bias))
    mapped: Tensor = layer.drop_path(layer.lambda_2 * layer.mlp(layer.layernorm_after(x)))
    return x + mapped


def _attended(layer: BeitLayer, x: Tensor, bias: Tensor) -> Tensor:
    attention = layer.attention
    count, tokens, width = x.shape
    heads, groups = attention.num_attention_heads, len(bias)
    weights = (attention.q_proj.weight * attention.scaling, attention.k_proj.weight, attention.v_proj.weight)
    q_bias, v_bias = attention.q_proj.bias * attention.scaling, attention.v_proj.bias
    joined = F.linear(x, torch.cat(weights), torch.cat((q_bias, torch.zeros_like(q_bias), v_bias)))
    q, k, v = joined.view(count, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q @ k.transpose(2, 3)).view(groups, count // groups, heads, tokens, tokens) + bias[:, None]
    attended = scores.view(count, heads, tokens, tokens).softmax(-1).to(v.dtype) @ v
    output: Tensor = attention.o_proj(attended.transpose(1, 2).reshape(count, tokens, width))
    return output
