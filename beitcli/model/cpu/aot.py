"""The network compiled ahead of time by torch's inductor, with its weights, and kept in the user's cache."""

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import zipfile
from collections.abc import Callable, Mapping
from math import ceil
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from beitcli import __version__
from beitcli.errors import first_line
from beitcli.model.checkpoint import Checkpoint, square_side
from beitcli.model.cpu.amx import has_amx_layers
from beitcli.model.cpu.aot_library import LibraryNetwork
from beitcli.model.cpu.int8 import quantized_layer, sums_exactly
from beitcli.model.cpu.toolchain import cache_folder, compiler
from beitcli.model.network import Beit, Output, PixelScale
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import INT8, Runtime, has_amx, is_faster_in_bf16

log = logging.getLogger(__name__)

WORTH = 400_000.0
"""GFLOP from which on compiling pays off: about 5 % of eight minutes at 850 GFLOP/s, for 15 to 20 s."""

WORTH_WITH_AMX = 1_500.0
"""The same for the layers for AMX: about half a second of the 1.2 s that the compiler takes once."""

LOOK_AHEAD = 2000
"""Most images that are counted before that decision."""

EXPECTED = 10
"""Factor from `LOOK_AHEAD` images to the expected number of images in such a run."""

_LIBRARY, _PREFIX = "network.so", "network-"

_KEPT = 4
"""Compiled networks that stay in the cache, each as large as its weights."""


def _gflop_of(config: Mapping[str, Any], preprocessing: Preprocessing) -> float:
    """GFLOP for one image in the network's layers: two for each weight and token, and those of attention.

    0 for an invalid config, which the network reports later.
    """
    try:
        height, width = preprocessing.size
        patch, hidden = square_side(config, "patch_size", 16), config.get("hidden_size", 768)
        tokens = 1 + (height // patch) * (width // patch)
        weights = 4 * hidden**2 + 2 * hidden * config.get("intermediate_size", 3072)
        return float(2e-9 * tokens * (weights + 2 * tokens * hidden) * config.get("num_hidden_layers", 12))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0


def is_worth_compiling(
    checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime, count: Callable[[int], int] | None
) -> bool:
    """True if compiling the network first pays off in a run. `count(n)` gives the number of images, at most n.

    Without it the number is unknown and may be large: enough where compiling takes a second. Other networks are
    compiled for one batch size, and so for runs with `many_batches`.
    """
    quick = has_amx_layers(runtime)
    if not (quick or (runtime.many_batches and count)):
        return False
    needed = ceil((WORTH_WITH_AMX if quick else WORTH) / max(_gflop_of(checkpoint.config, preprocessing), 1e-6))
    counted = min(needed, LOOK_AHEAD)
    if needed > EXPECTED * LOOK_AHEAD or (count and count(counted) < counted):
        return False
    if compiler() is None:
        log.debug("the network runs uncompiled: no C++ compiler")
        return False
    return True


def compiled_network(
    checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime, batch_size: int, output: Output = "logits"
) -> nn.Module | None:
    """The network for batches of this size, from the cache or compiled now; None, with a notice, where that fails."""
    try:
        path = _library_path(checkpoint, preprocessing, runtime, batch_size, output)
        if not os.path.exists(path):
            log.info(
                "compiling the network, once for this model, batch size and machine (`compile=False` skips this)",
                extra={"stage": "compiling"},
            )
            if not (compiler() and _compile_in_process(path, checkpoint, preprocessing, runtime, batch_size, output)):
                log.info("the network runs uncompiled: %s", "compiling failed" if compiler() else "no C++ compiler")
                return None
        network = LibraryNetwork(path, runtime.concurrency)
        os.utime(path)  # the oldest are removed first
        return OneShape(network, batch_size)
    except (RuntimeError, OSError, AttributeError) as error:
        log.info("the network runs uncompiled: %s", first_line(error))
        return None


class OneShape(nn.Module):
    """A network that is compiled for one batch size: smaller batches are padded."""

    def __init__(self, network: Callable[[Tensor], Tensor], batch_size: int) -> None:
        super().__init__()
        self._network = network
        self._batch_size = batch_size

    def forward(self, pixels: Tensor) -> Tensor:
        count = len(pixels)
        if count < self._batch_size:
            pixels = torch.cat((pixels, pixels.new_zeros(self._batch_size - count, *pixels.shape[1:])))
        return self._network(pixels)[:count]


def _compile_in_process(
    path: str, checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime, batch_size: int, output: Output
) -> bool:
    """Compile in another process, so that this one never imports the compiler; True if it succeeded."""
    with TemporaryDirectory(dir=os.path.dirname(path), ignore_cleanup_errors=True) as folder:
        arguments = (folder, checkpoint, preprocessing, runtime, batch_size, output, runtime.threads)
        process = multiprocessing.get_context("spawn").Process(target=_compile, args=arguments, daemon=True)
        process.start()
        try:
            process.join()
        finally:
            process.kill()
            process.join()
        if process.exitcode == 0:
            os.replace(os.path.join(folder, _LIBRARY), path)
            _remove_oldest(os.path.dirname(path))
    return process.exitcode == 0


def _compile(
    folder: str,
    checkpoint: Checkpoint,
    preprocessing: Preprocessing,
    runtime: Runtime,
    batch_size: int,
    output: Output,
    threads: int,
) -> None:
    """Compile the network into `folder`; entry point of the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # a daemon may not have children
    from torch._inductor import aoti_compile_and_package

    scale = PixelScale(preprocessing.factor, preprocessing.mean, preprocessing.std)
    torch.set_num_threads(threads)  # their number is compiled in
    tensors, options = checkpoint.tensors(), {"prepared": quantized_layer} if runtime.dtype == INT8 else {}
    dtype, size = runtime.torch_dtype, preprocessing.size
    network = Beit(checkpoint.config, tensors, size, scale, dtype, output, **options).eval()
    pixels = torch.zeros((batch_size, *preprocessing.shape), dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(network, (pixels,))
        package = os.path.join(folder, "network.pt2")
        aoti_compile_and_package(program, package_path=package, inductor_configs={"freezing": True})
    with zipfile.ZipFile(package) as parts:
        [library] = [name for name in parts.namelist() if name.endswith(".so")]
        os.replace(parts.extract(library, folder), os.path.join(folder, _LIBRARY))


def _remove_oldest(folder: str) -> None:
    libraries = [entry for entry in os.scandir(folder) if entry.name.startswith(_PREFIX)]
    libraries.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in libraries[_KEPT:]:
        os.unlink(entry.path)


def _library_path(
    checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime, batch_size: int, output: Output
) -> str:
    """The library's path in the cache: its name is a digest of everything that it depends on."""
    files = [(os.path.realpath(path), os.stat(path)) for path in checkpoint.files()]
    facts = (
        (__version__, torch.__version__, torch.backends.cpu.get_cpu_capability(), has_amx()),
        (preprocessing, runtime.dtype, batch_size, runtime.threads, output),
        (sums_exactly(), is_faster_in_bf16()) if runtime.dtype == INT8 else (),  # as in `quantized_layer`
        json.dumps(dict(checkpoint.config), sort_keys=True),  # a probe's may differ from the file
        [(path, status.st_size, status.st_mtime_ns) for path, status in files],
    )
    name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    return os.path.join(cache_folder(), f"{_PREFIX}{name}.so")
