"""BEiT (Bao, Dong, Wei 2021, arXiv:2106.08254), for inference, in plain torch.

The arithmetic is that of transformers' `BeitForImageClassification`, arranged to run fast: pixels stay uint8 until
their patches are cut, normalisation is folded into the patch projection and layer scale into the two linear maps before
it, q, k and v are one linear map, and each relative position bias is built once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitcli.errors import ModelError
from beitcli.model.checkpoint import square_side
from beitcli.model.weights import is_finite, not_finite

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}
"""The values of `hidden_act` in a config."""


SCORES_AT_ONCE = 1_000_000
"""Attention scores that are computed at a time: in bf16, what two cores' second-level caches hold."""


_MIDDLE = 128
"""Subtracted from the bytes of pixels; the difference is exact in every dtype."""


@dataclass(frozen=True, slots=True)
class PixelScale:
    """Scaling of bytes to the network's input: `(byte * factor - mean) / std` for each channel."""

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Weights:
    """A checkpoint's tensors by name; errors name a tensor that is missing, of the wrong shape or not finite."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        """The tensor in float32, in which layers are folded before one conversion."""
        if name not in self._tensors:
            raise ModelError(f"the checkpoint has no `{name}`", "is it an image classifier, and complete?")
        tensor = self._tensors[name].float()
        if not is_finite(tensor):
            raise not_finite(name)
        return tensor

    def shaped(self, name: str, *shape: int) -> Tensor:
        """The tensor, which must have the shape that the config requires; a side of -1 has any length."""
        tensor = self[name]
        if not (
            tensor.dim() == len(shape) and all(want in (-1, has) for want, has in zip(shape, tensor.shape, strict=True))
        ):
            raise ModelError(f"`{name}` has shape {tuple(tensor.shape)}, and the checkpoint's config requires {shape}")
        return tensor


Output = Literal["logits", "mean", "cls", "patches", "layers"]
"""The output for an image: the classifier's logits, or the final states that they are computed from.

`mean` and `cls` have shape (hidden,), `patches` (patches, hidden). `layers` (layers, hidden) are the states that a
classifier would take behind each layer; all but the last are standardised by a norm without weights.

In a checkpoint that classifies by the mean of its patches, the final layer norm belongs to that mean, and `cls` and
`patches` are without it; in one that classifies by its first state, all states are behind the norm. So `mean` of the
first kind is the pooler's output in transformers' `BeitModel`, and the others are its `last_hidden_state`. A checkpoint
that is no classifier, like a masked-image model, may lack that norm: then it is one without weights, as in `BeitModel`.
"""


class Beit(nn.Module):
    """Images to logits or features: uint8 of shape (n, height, width, 3) to the network's dtype of shape (n, …).

    `size` is (height, width) in pixels; where it is not the checkpoint's own, positions are interpolated as
    transformers does. `arranged` gives what takes the place of the layers; each is in memory once it asks for it.
    Raises ModelError when the config requires something unsupported or a tensor is missing.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        size: tuple[int, int],
        scale: PixelScale,
        dtype: torch.dtype = torch.float32,
        output: Output = "logits",
        arranged: "Callable[[Iterator[Layer]], Iterable[nn.Module]]" = iter,
    ) -> None:
        super().__init__()
        weights = Weights(tensors)
        if config.get("num_channels", 3) != 3:
            raise ModelError(f"the checkpoint needs {config['num_channels']} channels, and images here have 3")
        self.patch = square_side(config, "patch_size", 16)
        self.grid = (size[0] // self.patch, size[1] // self.patch)
        self.projection = _folded_patch_projection(weights, self.patch, scale)
        self.projected_in: torch.dtype | None = None  # the start token's
        self.start = nn.Parameter(weights["beit.embeddings.cls_token"][0], requires_grad=False)
        self.tokens = 1 + self.grid[0] * self.grid[1]
        self.positions = _absolute_positions(config, weights, self.grid)
        self.mean_pooling = config.get("use_mean_pooling", True)
        self.output = output
        averaging = self.mean_pooling and output in ("logits", "mean")
        layers = _layers(config, weights, self.grid, last_averages=averaging)
        # converted one by one: no second model in float32 is in memory
        self.layers = nn.ModuleList(layer.to(dtype) for layer in arranged(layers))
        self.eps = float(config.get("layer_norm_eps", 1e-12))
        self.norm: nn.Module = nn.Identity()
        if not self.mean_pooling or output in ("logits", "mean", "layers"):
            name = "beit.pooler.layernorm" if self.mean_pooling else "beit.layernorm"
            if output in ("mean", "layers") and f"{name}.weight" not in weights and "classifier.weight" not in weights:
                self.norm = nn.LayerNorm(self.start.shape[-1], eps=self.eps)
            else:
                self.norm = _norm(config, weights, name)
        self.head: nn.Module = nn.Identity()
        if output == "logits":
            self.head = _linear(weights["classifier.weight"], weights["classifier.bias"])
        self.to(dtype)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.projection(self._patches(pixels).to(self.projected_in or self.start.dtype).sub_(_MIDDLE))
        x = torch.cat((self.start.expand(len(patches), -1, -1), patches), dim=1)
        if self.positions is not None:
            x = x + self.positions
        if self.output == "layers":
            return self._behind_each_layer(x)
        for layer in self.layers:
            x = layer(x)
        outputs: Tensor = self.head(self._pooled(x))
        return outputs

    def project_in(self, dtype: torch.dtype) -> None:
        """Compute the patch projection in another dtype than the rest. In bf16 the bytes of pixels are exact."""
        self.projection.to(dtype)
        self.projected_in = dtype

    def _behind_each_layer(self, x: Tensor) -> Tensor:
        states = []
        for layer in self.layers:
            x = layer(x)
            states.append(mean_of_patches(x) if self.mean_pooling else x[:, 0])
        *middle, last = states
        standardised = [F.layer_norm(each, each.shape[-1:], eps=self.eps) for each in middle]
        return torch.stack([*standardised, self.norm(last)], dim=1)

    def _pooled(self, x: Tensor) -> Tensor:
        """The requested final states, or their mean, after the norm that belongs to them."""
        output = self.output
        if output == "logits":
            output = "mean" if self.mean_pooling else "cls"
        if output == "mean" and self.mean_pooling:
            is_mean = x.dim() == 2  # of a last layer that averages
            pooled: Tensor = self.norm(x if is_mean else mean_of_patches(x))
        elif output == "mean":
            pooled = self.norm(x[:, 1:]).mean(1)
        else:
            pooled = self.norm(x[:, 0] if output == "cls" else x[:, 1:])
        return pooled

    def _patches(self, pixels: Tensor) -> Tensor:
        """(n, height, width, 3) to (n, patches, patch * patch * 3); incomplete patches at the edges are dropped."""
        (rows, columns), patch = self.grid, self.patch
        cut = pixels[:, : rows * patch, : columns * patch].reshape(-1, rows, patch, columns, patch, 3)
        return cut.transpose(2, 3).reshape(-1, rows * columns, patch * patch * 3)


class ActivatedLinear(nn.Module):
    """A linear map and its activation, which some libraries fuse."""

    def __init__(self, linear: nn.Linear, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.linear(x))


class Layer(nn.Module):
    """One transformer block, layer scale folded in (section 2.3 of the paper; lambda is CaiT's, arXiv:2103.17239).

    If it `averages`, it gives the mean of the patches' states, (n, hidden), instead of all states. The map down from
    the inner layer is linear: computed of the mean it takes no time.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Weights, name: str, bias: Tensor | None, averages: bool
    ) -> None:
        super().__init__()
        self.averages = averages
        self.heads = config.get("num_attention_heads", 12)
        self.bias: Tensor | None = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.softmax = biased_softmax
        self.norm_before = _norm(config, weights, name + "layernorm_before")
        self.norm_after = _norm(config, weights, name + "layernorm_after")
        self.qkv = _joined_qkv(weights, name + "attention.attention.", self.heads)
        self.out = _scaled_linear(weights, name + "attention.output.dense", name + "lambda_1")
        up = _linear(weights[name + "intermediate.dense.weight"], weights[name + "intermediate.dense.bias"])
        self.up = ActivatedLinear(up, _activation(config))
        self.down = _scaled_linear(weights, name + "output.dense", name + "lambda_2")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self._attend(self.norm_before(x)))
        inner = self.up(self.norm_after(x))
        if self.averages:
            x, inner = mean_of_patches(x), mean_of_patches(inner)
        x = x + self.down(inner)
        return x  # noqa: RET504  # mypy knows x as a Tensor

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if q.is_cpu and q.dtype == torch.bfloat16:
            return _attend_by_parts(q, k, v, self.bias, self.softmax)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias, scale=1.0)
        return attended.transpose(1, 2).flatten(2)


def mean_of_patches(x: Tensor) -> Tensor:
    """The mean over the tokens of (n, tokens, width), without the first: (n, width)."""
    return x[:, 1:].mean(1)


def biased_softmax(scores: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax over the last side of attention's scores (n, heads, tokens, tokens), which may be overwritten."""
    if bias is not None:
        scores += bias
    return scores.softmax(-1)


def _attend_by_parts(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, softmax: Callable[[Tensor, Tensor | None], Tensor]
) -> Tensor:
    """Attention over (n, heads, tokens, width), a few images at once so that their scores stay in the cores' caches.

    On CPUs with bf16 instructions but without AMX this takes half the time of torch's fused kernel.
    """
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    count, heads, tokens, width = q.shape
    step = max(1, SCORES_AT_ONCE // (heads * tokens * tokens))
    attended = q.new_empty(count, tokens, heads, width)
    for start in range(0, count, step):
        part = slice(start, start + step)
        attended[part] = (softmax(q[part] @ k[part].transpose(2, 3), bias) @ v[part]).transpose(1, 2)
    return attended.flatten(2)


def _layers(
    config: Mapping[str, Any], weights: Weights, grid: tuple[int, int], *, last_averages: bool
) -> Iterator[Layer]:
    count = config.get("num_hidden_layers", 12)
    for index in range(count):
        bias = _position_bias(config, weights, index, grid)
        averages = last_averages and index == count - 1
        yield Layer(config, weights, f"beit.encoder.layer.{index}.", bias, averages)


def _activation(config: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    name = config.get("hidden_act", "gelu")
    if name not in ACTIVATIONS:
        raise ModelError(f"the checkpoint's activation `{name}` is unknown; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # allocates nothing
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _scaled_linear(weights: Weights, name: str, layer_scale: str) -> nn.Linear:
    weight, bias = weights[name + ".weight"], weights[name + ".bias"]
    if layer_scale in weights:
        factor = weights[layer_scale]
        weight, bias = weight * factor[:, None], bias * factor
    return _linear(weight, bias)


def _joined_qkv(weights: Weights, name: str, heads: int) -> nn.Linear:
    """Queries come out divided by the square root of a head's width, as attention expects them."""
    query, key, value = (weights[f"{name}{part}.weight"] for part in ("query", "key", "value"))
    q_bias, v_bias = weights[name + "query.bias"], weights[name + "value.bias"]
    scale = (len(query) // heads) ** -0.5
    weight = torch.cat((query * scale, key, value))
    return _linear(weight, torch.cat((q_bias * scale, torch.zeros_like(q_bias), v_bias)))  # BEiT's keys have no bias


def _norm(config: Mapping[str, Any], weights: Weights, name: str) -> nn.LayerNorm:
    weight = weights[name + ".weight"]
    norm = nn.LayerNorm(weight.shape, eps=float(config.get("layer_norm_eps", 1e-12)))
    norm.weight = nn.Parameter(weight, requires_grad=False)
    norm.bias = nn.Parameter(weights[name + ".bias"], requires_grad=False)
    return norm


def _folded_patch_projection(weights: Weights, patch: int, scale: PixelScale) -> nn.Linear:
    """The patch projection of bytes less 128.

    `W ((x f - m) / s) + b` is `(W f / s) (x - 128) + b + sum(W (128 f - m) / s)`.
    So inputs are small, and with them the errors of weights that are rounded to bf16.
    """
    weight = weights.shaped("beit.embeddings.patch_embeddings.projection.weight", -1, 3, patch, patch)
    weight = weight.permute(0, 2, 3, 1)
    mean, std = torch.tensor(scale.mean), torch.tensor(scale.std)
    middle = (_MIDDLE * scale.factor - mean) / std
    bias = weights["beit.embeddings.patch_embeddings.projection.bias"] + (weight * middle).sum((1, 2, 3))
    return _linear((weight * (scale.factor / std)).flatten(1), bias)


def trained_grid(config: Mapping[str, Any]) -> tuple[int, int]:
    """The rows and columns of patches in the checkpoint's own images."""
    size, patch = config.get("image_size", 224), square_side(config, "patch_size", 16)
    height, width = (size, size) if isinstance(size, int) else size
    return height // patch, width // patch


def _absolute_positions(config: Mapping[str, Any], weights: Weights, grid: tuple[int, int]) -> nn.Parameter | None:
    if not config.get("use_absolute_position_embeddings", False):
        return None
    rows, columns = trained = trained_grid(config)
    positions = weights.shaped("beit.embeddings.position_embeddings", 1, rows * columns + 1, -1)
    return nn.Parameter(resized_positions(positions, trained, grid), requires_grad=False)


def resized_positions(positions: Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Absolute positions (1, 1 + patches, hidden) for another grid; that of the start token stays."""
    if grid == trained:
        return positions
    placed = positions[:, 1:].reshape(1, *trained, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(placed, size=grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    return torch.cat((positions[:, :1], patches), dim=1)


def _position_bias(config: Mapping[str, Any], weights: Weights, layer: int, grid: tuple[int, int]) -> Tensor | None:
    """Position bias of one layer's attention, (1, heads, tokens, tokens): its own, the shared one, or both."""
    names = []
    if config.get("use_relative_position_bias", False):
        names.append(f"beit.encoder.layer.{layer}.attention.attention.relative_position_bias.")
    if config.get("use_shared_relative_position_bias", False):
        names.append("beit.encoder.relative_position_bias.")
    if not names:
        return None
    rows, columns = trained = trained_grid(config)
    shape = ((2 * rows - 1) * (2 * columns - 1) + 3, config.get("num_attention_heads", 12))
    tables = [
        resized_table(weights.shaped(name + "relative_position_bias_table", *shape), trained, grid) for name in names
    ]
    bias = torch.stack([table[_relative_index(grid)] for table in tables]).sum(0)
    return bias.permute(2, 0, 1).unsqueeze(0).contiguous()


def resized_table(table: Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The table of relative distances for another grid; the last three rows belong to the start token and stay.

    As transformers' `BeitRelativePositionBias` (after MiDaS v3.1, arXiv:2307.14460), its order of sides included: with
    it the table of a grid that is not square changes even where the size does not.
    """
    if trained == grid == grid[::-1]:
        return table
    distances = table[:-3].reshape(1, 2 * trained[1] - 1, 2 * trained[0] - 1, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(distances, size=(2 * grid[0] - 1, 2 * grid[1] - 1), mode="bilinear")
    return torch.cat((resized.permute(0, 2, 3, 1).flatten(0, 2), table[-3:]))


def _relative_index(grid: tuple[int, int]) -> Tensor:
    """For each pair of tokens its row in the table: distances row by row, then start to patch, patch to start, both."""
    rows, columns = grid
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    distance = place[:, None] - place[None, :]
    inside = (distance[..., 0] + rows - 1) * (2 * columns - 1) + distance[..., 1] + columns - 1
    count = (2 * rows - 1) * (2 * columns - 1)
    index = torch.empty(rows * columns + 1, rows * columns + 1, dtype=torch.long)
    index[1:, 1:] = inside
    index[0, :], index[:, 0], index[0, 0] = count, count + 1, count + 2
    return index
