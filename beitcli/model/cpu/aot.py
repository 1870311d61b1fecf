"""The network compiled ahead of time by torch's inductor, with its weights, and kept in the user's cache."""

import logging
import multiprocessing
import os
import signal
import zipfile
from collections.abc import Callable
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from beitcli.errors import first_line
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.cpu.aot_library import LibraryNetwork
from beitcli.model.cpu.cache import network_path, remove_oldest
from beitcli.model.cpu.toolchain import compiler
from beitcli.model.network import Beit, Output, PixelScale
from beitcli.model.preprocessing import Preprocessing
from beitcli.model.runtime import Runtime

log = logging.getLogger(__name__)

_LIBRARY, _PREFIX = "network.so", "network-"


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
            remove_oldest(os.path.dirname(path), _PREFIX)
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
    tensors, dtype, size = checkpoint.tensors(), runtime.torch_dtype, preprocessing.size
    network = Beit(checkpoint.config, tensors, size, scale, dtype, output).eval()
    pixels = torch.zeros((batch_size, *preprocessing.shape), dtype=torch.uint8)
    with torch.no_grad():
        program = torch.export.export(network, (pixels,))
        package = os.path.join(folder, "network.pt2")
        aoti_compile_and_package(program, package_path=package, inductor_configs={"freezing": True})
    with zipfile.ZipFile(package) as parts:
        [library] = [name for name in parts.namelist() if name.endswith(".so")]
        os.replace(parts.extract(library, folder), os.path.join(folder, _LIBRARY))


def _library_path(
    checkpoint: Checkpoint, preprocessing: Preprocessing, runtime: Runtime, batch_size: int, output: Output
) -> str:
    settings = (preprocessing, runtime.dtype, batch_size, runtime.threads, output)
    return network_path(_PREFIX, checkpoint, (torch.backends.cpu.get_cpu_capability(), *settings)) + ".so"
