"""The machine that runs the benchmark."""

import platform
from dataclasses import dataclass

import torch

from beitcli.model.cpu.own_layers import has_own_layers
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.runtime import choose_runtime


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as this process may use it; `best_dtype` is the choice of the dtype `auto`.

    `compiles` is True if that dtype is faster compiled, and there is a compiler.
    """

    processor: str
    cores: int
    threads: int
    fast_bf16: bool
    gpu: str | None
    device: str
    best_dtype: str
    compiles: bool
    python: str
    torch: str


def this_machine(device: str, cores: int) -> Machine:
    """Describe this machine, of which `cores` may be used. Raises UsageError for a device that is absent."""
    best = choose_runtime(device, "auto")
    return Machine(
        processor=_processor(),
        cores=cores,
        threads=torch.get_num_threads(),
        fast_bf16=choose_runtime("cpu", "auto").dtype == "bf16",
        gpu=torch.cuda.get_device_name(best.device) if best.device.startswith("cuda") else None,
        device=best.device,
        best_dtype=best.dtype,
        compiles=has_own_layers(best) and compiler() is not None,
        python=platform.python_version(),
        torch=torch.__version__,
    )


def _processor() -> str:
    """The processor's name by Linux, or by Python elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except FileNotFoundError:
        pass
    return platform.processor() or platform.machine()
