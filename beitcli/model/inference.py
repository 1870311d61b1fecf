"""Checkpoint and runtime -> Forward: pixels in, logits or features out, on any device, within its memory."""

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from beitcli.errors import DeviceError, ModelError, first_line
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.cpu.aot import OneShape, compiled_network
from beitcli.model.cpu.int8 import quantized_layers
from beitcli.model.cpu.layers import CompiledLayers
from beitcli.model.cpu.own_layers import has_own_layers, kept_layers, use_own_layers
from beitcli.model.cpu.packing import can_pack, pack_linear_layers
from beitcli.model.network import Beit, Layer, Output, PixelScale
from beitcli.model.preprocessing import Preprocessing, ProcessorPreprocessing
from beitcli.model.runtime import INT8, Runtime, is_faster_in_bf16
from beitcli.model.weights import is_finite, not_finite, weight_errors

log = logging.getLogger(__name__)


class Forward:
    """A loaded checkpoint, fastest at batches of `batch_size`.

    Raises ModelError where the weights do not make a network with this output.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        preprocessing: Preprocessing | ProcessorPreprocessing,
        runtime: Runtime,
        batch_size: int,
        output: Output = "logits",
    ) -> None:
        self._checkpoint = checkpoint
        self._preprocessing = preprocessing
        self._runtime = runtime
        self._batch_size = batch_size
        self._output = output
        self._network = (runtime.compiled and self._compiled()) or self._load(runtime)
        self._exact: nn.Module | None = None
        self._loading = Lock()
        self._largest_batch: int | None = None

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """The network's output in float32. Rows that overflow its dtype are computed again in float32.

        `pixels` has the preprocessing's shape and dtype behind a first dimension of images. Raises DeviceError if the
        device fails, ModelError if the output is not finite in float32 either.
        """
        outputs = self._outputs(self._network, pixels)
        broken = ~outputs.isfinite().flatten(1).all(-1)
        if broken.any() and self._runtime.dtype != "fp32":
            log.info("%d images overflow %s and are computed in fp32", int(broken.sum()), self._runtime.dtype)
            with self._loading:  # other threads may be here
                if self._exact is None:
                    self._exact = self._load(replace(self._runtime, dtype="fp32", compiled=False))
            outputs[broken] = self._outputs(self._exact, pixels)[broken]
            broken = ~outputs.isfinite().flatten(1).all(-1)
        if broken.any():
            raise ModelError(
                f"`{self._checkpoint.name}` gives {self._output} that are not finite",
                "its weights are finite: do they belong to its config?",
            )
        return outputs

    def _outputs(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """The outputs for a batch, in halves where it does not fit into the device's memory."""
        if self._largest_batch and len(pixels) > self._largest_batch:
            return torch.cat([self._outputs(network, part) for part in torch.split(pixels, self._largest_batch)])
        try:
            outputs: Tensor = network(pixels.to(self._runtime.device, non_blocking=True)).float()
            return outputs
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise DeviceError(f"{self._runtime.device} failed: {first_line(error)}") from error
            if len(pixels) == 1:
                hint = "try a smaller model, `image_size=` or `dtype=`"
                raise DeviceError(f"{self._runtime.device} has too little memory for one image", hint) from error
        self._largest_batch = len(pixels) // 2
        log.info("out of memory: the batch size is now %d", self._largest_batch)
        return self._outputs(network, pixels)

    def _load(self, runtime: Runtime) -> nn.Module:
        try:
            network = (
                self._beit(self._preprocessing, runtime)
                if isinstance(self._preprocessing, Preprocessing)
                else self._reference()
            )
            return network.eval().to(runtime.device, runtime.torch_dtype)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            hint = "try a smaller model, `image_size=` or `dtype=`, or `device=cpu`"
            raise DeviceError(f"{self._runtime.device} has too little memory for the model", hint) from error

    def _compiled(self) -> nn.Module | None:
        """The compiled network, or None where this device or architecture is not supported."""
        if self._runtime.device == "mps" or not isinstance(self._preprocessing, Preprocessing):
            log.info("the network runs uncompiled: only a BEiT on a CPU or a CUDA device can be compiled")
            return None
        if self._runtime.device != "cpu":  # by Triton, on first use: no package, and nothing is cached
            return OneShape(torch.compile(self._load(self._runtime), dynamic=False), self._batch_size)
        if has_own_layers(self._runtime):
            return self._load(self._runtime)
        return compiled_network(self._checkpoint, self._preprocessing, self._runtime, self._batch_size, self._output)

    def _beit(self, preprocessing: Preprocessing, runtime: Runtime) -> nn.Module:
        checkpoint, scale = self._checkpoint, PixelScale(preprocessing.factor, preprocessing.mean, preprocessing.std)
        tensors = checkpoint.tensors()
        kept = kept_layers(checkpoint, preprocessing, runtime, self._output)
        ready = kept and kept.read()
        arranged: Callable[[Iterator[Layer]], Iterable[nn.Module]]
        arranged = (lambda _: [ready]) if ready else quantized_layers if runtime.dtype == INT8 else iter
        try:
            dtype, size = runtime.torch_dtype, preprocessing.size
            network = Beit(checkpoint.config, tensors, size, scale, dtype, self._output, arranged)
        except ModelError as error:
            raise ModelError(f"`{checkpoint.name}`: {error}", error.hint) from error
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"the config.json of `{checkpoint.name}` is invalid: {error}") from error
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"the weights of `{checkpoint.name}` do not fit together: {error}") from error
        outputs, labels = getattr(network.head, "out_features", None), len(checkpoint.labels)
        if outputs not in (None, labels):
            raise ModelError(f"`{checkpoint.name}` has {outputs} outputs and {labels} labels")
        if runtime.dtype == INT8 and is_faster_in_bf16():
            network.project_in(torch.bfloat16)
        if not ready and runtime.compiled and has_own_layers(runtime):
            use_own_layers(network, runtime)
            made = next(iter(network.layers), None)
            if kept and isinstance(made, CompiledLayers):
                kept.write(made)
        if runtime.device == "cpu" and can_pack(dtype):
            pack_linear_layers(network, self._batch_size * network.tokens)
        return network

    def _reference(self) -> nn.Module:
        if self._runtime.dtype == INT8:
            raise ModelError(f"`{self._checkpoint.name}` is no BEiT, and `dtype=int8` needs one", "try `dtype=auto`")
        from transformers import AutoModelForImageClassification
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
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
        missing = sorted(loading["missing_keys"]) + sorted(key for key, *_ in loading["mismatched_keys"])
        if missing:
            raise ModelError(
                f"`{self._checkpoint.name}` has no `{missing[0]}` of the shape that its config requires",
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
        parameters = inspect.signature(model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=pixels.to(self.model.dtype), **self.options).logits
        return logits


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
