"""Checkpoint and runtime -> Forward: pixels in, what the network says of them out, on any device and in its memory."""

import inspect
import logging
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from beitcli.errors import DeviceError, ModelError, first_line
from beitcli.model.amx import has_amx_layers, use_amx_layers
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.compiled import OneShape, compiled_network
from beitcli.model.network import Beit, Output, PixelScale
from beitcli.model.packing import can_pack, pack_linear_layers
from beitcli.model.recipe import ProcessorRecipe, Recipe
from beitcli.model.runtime import Runtime
from beitcli.model.weights import is_finite, not_finite, weight_errors

log = logging.getLogger(__name__)


class Forward:
    """A loaded checkpoint, fastest at batches of `batch_size`.

    Raises ModelError where the weights do not make what is asked for.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe | ProcessorRecipe,
        runtime: Runtime,
        batch_size: int,
        output: Output = "logits",
    ) -> None:
        self._checkpoint = checkpoint
        self._recipe = recipe
        self._runtime = runtime
        self._batch_size = batch_size
        self._output = output
        self._network = (runtime.compiled and self._compiled()) or self._load(runtime.torch_dtype)
        self._exact: nn.Module | None = None
        self._loading = Lock()
        self._largest_batch: int | None = None

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """The network's output in float32. Rows that overflow its dtype are computed again in float32.

        `pixels` has the recipe's shape and dtype behind a first dimension of pictures. Raises DeviceError where the
        device fails, ModelError where the output is not finite in float32 either.
        """
        outputs = self._outputs(self._network, pixels)
        broken = ~outputs.isfinite().flatten(1).all(-1)
        if broken.any() and self._runtime.dtype != "fp32":
            log.info("%d pictures overflow %s and are computed in fp32", int(broken.sum()), self._runtime.dtype)
            with self._loading:  # other lanes may be here
                if self._exact is None:
                    self._exact = self._load(torch.float32)
            outputs[broken] = self._outputs(self._exact, pixels)[broken]
            broken = ~outputs.isfinite().flatten(1).all(-1)
        if broken.any():
            raise ModelError(
                f"`{self._checkpoint.name}` gives {self._output} that are not finite",
                "its weights are, but are they those of its config?",
            )
        return outputs

    def _outputs(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """The outputs for a batch, in halves where the device has too little memory for all of it."""
        if self._largest_batch and len(pixels) > self._largest_batch:
            return torch.cat([self._outputs(network, part) for part in torch.split(pixels, self._largest_batch)])
        try:
            outputs: Tensor = network(pixels.to(self._runtime.device, non_blocking=True)).float()
            return outputs
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise DeviceError(f"{self._runtime.device} failed: {first_line(error)}") from error
            if len(pixels) == 1:
                hint = "try a smaller model, --image-size or --dtype"
                raise DeviceError(f"{self._runtime.device} has too little memory for one picture", hint) from error
        self._largest_batch = len(pixels) // 2
        log.info("out of memory: the batch size is now %d", self._largest_batch)
        return self._outputs(network, pixels)

    def _load(self, dtype: torch.dtype) -> nn.Module:
        try:
            network = self._beit(self._recipe, dtype) if isinstance(self._recipe, Recipe) else self._reference()
            return network.eval().to(self._runtime.device, dtype)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            hint = "try a smaller model, --image-size or --dtype, or --device cpu"
            raise DeviceError(f"{self._runtime.device} has too little memory for the model", hint) from error

    def _compiled(self) -> nn.Module | None:
        """The network as a compiler makes it, or None where it is not for this device or architecture."""
        if self._runtime.device == "mps" or not isinstance(self._recipe, Recipe):
            log.info("only a BEiT on a CPU or a CUDA device is compiled: this one runs as it is")
            return None
        if self._runtime.device != "cpu":  # by Triton, as it is first used: no package, and nothing kept
            return OneShape(torch.compile(self._load(self._runtime.torch_dtype), dynamic=False), self._batch_size)
        if has_amx_layers(self._runtime):
            return self._load(torch.bfloat16)
        return compiled_network(self._checkpoint, self._recipe, self._runtime, self._batch_size, self._output)

    def _beit(self, recipe: Recipe, dtype: torch.dtype) -> nn.Module:
        checkpoint, scale = self._checkpoint, PixelScale(recipe.factor, recipe.mean, recipe.std)
        tensors = checkpoint.tensors()
        try:
            network = Beit(checkpoint.config, tensors, recipe.size, scale, dtype, self._output)
        except ModelError as error:
            raise ModelError(f"`{checkpoint.name}`: {error}", error.hint) from error
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"the config.json of `{checkpoint.name}` cannot be followed: {error}") from error
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"the weights of `{checkpoint.name}` do not fit together: {error}") from error
        outputs, labels = getattr(network.head, "out_features", None), len(checkpoint.labels)
        if outputs not in (None, labels):
            raise ModelError(f"`{checkpoint.name}` has {outputs} outputs and {labels} labels")
        if self._runtime.compiled and dtype == torch.bfloat16 and has_amx_layers(self._runtime):
            use_amx_layers(network)
        if self._runtime.device == "cpu" and can_pack(dtype):
            pack_linear_layers(network, self._batch_size * network.tokens)
        return network

    def _reference(self) -> nn.Module:
        from transformers import AutoModelForImageClassification
        from transformers.utils import logging as reports

        reports.disable_progress_bar()
        reports.set_verbosity_error()
        path = self._checkpoint.weight_file()
        try:
            with weight_errors(path):
                model, loading = AutoModelForImageClassification.from_pretrained(
                    self._checkpoint.folder,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    trust_remote_code=False,
                    dtype=torch.float32,
                )
        except (ValueError, ImportError, KeyError) as error:
            raise ModelError(f"cannot load `{self._checkpoint.name}`: {first_line(error)}") from error
        lacking = sorted(loading["missing_keys"]) + sorted(key for key, *_ in loading["mismatched_keys"])
        if lacking:
            raise ModelError(
                f"`{self._checkpoint.name}` has no `{lacking[0]}` of the shape that its config says",
                "is it an image classifier, and complete?",
            )
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not is_finite(tensor):
                broken = not_finite(name)
                raise ModelError(f"`{self._checkpoint.name}`: {broken}", broken.hint)
        return _Reference(model)


class _Reference(nn.Module):
    """Another architecture, by transformers: normalised pixels of shape (n, 3, height, width) to logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        takes = inspect.signature(model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pixels.to(self.model.dtype), **self.options).logits
        return logits


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
