"""The layers of a BEiT in training, as plain matrix products: torch's fused attention is slow where its bias learns."""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.beit.modeling_beit import BeitLayer


def cut(pixels: Tensor, patch: int) -> Tensor:
    """(n, 3, height, width) to (n, patches, 3 * patch * patch), in the order of the projection's weights."""
    return F.unfold(pixels, patch, stride=patch).transpose(1, 2)


def run_layer(layer: BeitLayer, x: Tensor, bias: Tensor) -> Tensor:
    """The states (n, tokens, hidden) behind the layer; row i of `bias` is for the i-th consecutive part of the batch.

    `bias` is (groups, heads, tokens, tokens).
    """
    x = x + layer.drop_path(layer.lambda_1 * _attention(layer, layer.layernorm_before(x), bias))
    mapped: Tensor = layer.drop_path(layer.lambda_2 * layer.mlp(layer.layernorm_after(x)))
    return x + mapped


def _attention(layer: BeitLayer, x: Tensor, bias: Tensor) -> Tensor:
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
