"""Device, dtype and batch size of the network, each chosen from what this machine has."""

import logging
import math
import platform
from dataclasses import dataclass, replace

import torch

from beitcli.errors import UsageError

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

INT8 = "int8"
"""Linear maps of 8 bits on a CPU."""

_TOKENS_PER_BATCH = {"cpu": 1_200, "cuda": 32_000, "mps": 8_000}
"""Tokens that keep a device busy.

On a CPU, two batches of 4 images of 197 tokens took up to 1 % longer than two of 8, but a run ends with a core idle for
half of its last batch. One image of 577 took 10 % longer than two, in fp32.
"""

_BYTES_PER_TOKEN = 64_000
"""Most GPU memory of a token of a large BEiT: 14 states of 1,024 halves at once, and as much again."""

_PATCH_AREA = 256  # of the published checkpoints; a good measure of work for others too


@dataclass(frozen=True, slots=True)
class Runtime:
    """A torch device, as torch names it, the dtype of the network there, and whether it is compiled.

    `many_batches` if many batches follow: then several are computed at once.
    """

    device: str
    dtype: str
    compiled: bool = False
    many_batches: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the network; with linear maps of int8, that of its states."""
        return torch.float32 if self.dtype == INT8 else DTYPES[self.dtype]

    @property
    def reference(self) -> "Runtime":
        """The runtime with which results in int8 are compared; any other is its own.

        In fp32 it is not compiled: that may take a minute.
        """
        if self.dtype != INT8:
            return self
        dtype = _native_dtypes(self.device)[0]
        return replace(self, dtype=dtype, compiled=self.compiled and dtype == "bf16")

    @property
    def concurrency(self) -> int:
        """Batches that are computed at once: two, given two threads and (unlike MPS) several queues."""
        if not self.many_batches:
            return 1
        if self.device == "cpu":
            return min(2, torch.get_num_threads())
        return 2 if self.device.startswith("cuda") else 1

    @property
    def threads(self) -> int:
        """CPU threads of each concurrent batch."""
        return max(1, torch.get_num_threads() // self.concurrency)


def choose_runtime(device: str, dtype: str) -> Runtime:
    """The requested device and dtype, or for `auto` the best available.

    Raises UsageError for an absent device, and for int8 on one that is no CPU.

    A dtype that the device has no instructions for is accepted, with one notice.
    """
    device = choose_device(device)
    native = _native_dtypes(device)
    if dtype == "auto":
        return Runtime(device, native[0])
    if dtype == INT8:
        if device != "cpu":
            raise UsageError(f"`dtype=int8` is for CPUs, and this run is on {device}", "add `device=cpu`")
    elif dtype not in native:
        log.info("%s is slower than %s on this %s", dtype, native[0], device)
    return Runtime(device, dtype)


def choose_device(device: str) -> str:
    """The requested device, or for `auto` the best available. Raises UsageError for one that is absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("`device=mps`: this machine has no MPS device", "try `device=auto`")
    if device.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            raise UsageError(f"`device={device}`: this machine has {count} CUDA devices", "try `device=auto`")
    return device


def _native_dtypes(device: str) -> tuple[str, ...]:
    """Dtypes that run at full speed on the device, the fastest first."""
    if device != "cpu":
        return ("fp16", "bf16", "fp32")
    return ("bf16", "fp32") if is_faster_in_bf16() else ("fp32",)


def is_faster_in_bf16() -> bool:
    """True if this CPU multiplies matrices of bf16 in less time than those of fp32.

    Intel's do so by AMX alone: with AVX512-BF16 only, as where a virtual machine hides AMX, an Emerald Rapids took 1.6
    to 1.9 times as long in bf16 (oneDNN of torch 2.13); AMD's are faster with it.
    """
    is_intel = str(_cpu_capabilities().get("cpu_name", "")).startswith("Intel")
    return _cpu_has("amx_bf16", "bf16", "sve_bf16") or (_cpu_has("avx512_bf16") and not is_intel)


def has_amx() -> bool:
    """True if this CPU has Intel's tile matrix instructions, for bf16 and int8, and vectors for bf16."""
    return all(map(_cpu_has, ("amx_tile", "amx_bf16", "amx_int8", "avx512_bf16")))


def has_avx512(*more: str) -> bool:
    """True if this CPU has vectors of 512 bits, and `more` instructions for them, like `bf16` and `vnni`."""
    return all(_cpu_has(f"avx512_{name}") for name in ("bw", "dq", "vl", *more))


def _cpu_has(*names: str) -> bool:
    """True if this CPU has one of the instruction sets, by torch's names for them."""
    capabilities = _cpu_capabilities()
    return any(capabilities.get(name) for name in names)


def _cpu_capabilities() -> dict[str, object]:
    """This CPU's capabilities by torch; empty for older versions."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def hardware_name(device: str) -> str:
    """A name of the device's hardware, alike where its results are."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    if device == "mps":
        return "MPS"
    maker = str(_cpu_capabilities().get("cpu_name", "")).partition(" ")[0] or platform.machine()
    matrices = " and AMX" if has_amx() else " and BF16" if _cpu_has("avx512_bf16") else ""
    return f"a CPU ({maker}) with {torch.backends.cpu.get_cpu_capability()}{matrices}"


def memory_of(device: str) -> float:
    """Bytes of the device's own memory; infinite for a CPU and MPS, which share the machine's."""
    return torch.cuda.get_device_properties(device).total_memory if device.startswith("cuda") else math.inf


def choose_batch_size(device: str, size: tuple[int, int], memory: float = math.inf) -> int:
    """Number of images of (height, width) pixels in a batch: a power of two that fills the device.

    Total memory counts, not free memory: scores may depend on the batch size, and should not vary from run to run.
    """
    tokens = size[0] * size[1] / _PATCH_AREA
    fits = memory / 2 / 2 / _BYTES_PER_TOKEN  # two batches, in half of the memory: weights and others need the rest
    wanted = min(_TOKENS_PER_BATCH[torch.device(device).type], fits) / tokens
    return max(1, min(128 if device != "cpu" else 32, 1 << int(wanted).bit_length() - 1 if wanted >= 1 else 1))
