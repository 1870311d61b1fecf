"""Layers of 8 bits as they lie in memory, in the user's cache: the next start neither folds nor quantizes weights."""

import json
import logging
import os
import zlib
from contextlib import suppress
from dataclasses import asdict
from tempfile import TemporaryDirectory

from beitcli.file_system import file_digest, sync
from beitcli.model.checkpoint import Checkpoint
from beitcli.model.cpu import int8, large_pages, layers
from beitcli.model.cpu.cache import network_path, remove_oldest
from beitcli.model.cpu.large_pages import LargePages
from beitcli.model.cpu.layers import Arrangement, CompiledLayers, layers_library
from beitcli.model.network import Output

log = logging.getLogger(__name__)

_PREFIX = "int8-"


class KeptLayers:
    """The layers of one network in the cache. Raises OSError where there can be no cache, or no compiled code."""

    def __init__(self, checkpoint: Checkpoint, size: tuple[int, int], output: Output, instructions: str) -> None:
        self._library = layers_library(instructions)
        code = [file_digest(str(module.__file__)) for module in (layers, int8, large_pages)]
        self._path = network_path(_PREFIX, checkpoint, (os.path.basename(self._library._name), code, size, output))

    def read(self) -> CompiledLayers | None:
        """The layers; None where they are missing or damaged."""
        try:
            with open(self._path, "rb") as stream:
                header = json.loads(stream.readline())
                memory = LargePages(os.fstat(stream.fileno()).st_size - stream.tell())
                stream.readinto(memory.bytes.numpy().data)
            arrangement = Arrangement(**header["arrangement"])
            if header["sum"] != _checksum(arrangement, memory):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with suppress(OSError):  # somebody else's cache
            os.utime(self._path)  # the oldest are removed first
        return CompiledLayers(arrangement, memory, self._library)

    def write(self, made: CompiledLayers) -> None:
        """Keep the layers, if there is room; those that have not been used for the longest time go."""
        header = {"arrangement": asdict(made.arrangement), "sum": _checksum(made.arrangement, made.memory)}
        try:
            with TemporaryDirectory(dir=os.path.dirname(self._path)) as folder:
                written = os.path.join(folder, "layers")
                with open(written, "wb") as stream:
                    stream.write(json.dumps(header).encode() + b"\n")
                    stream.write(made.memory.bytes.numpy().data)
                    stream.flush()
                    sync(stream.fileno())
                os.replace(written, self._path)
            remove_oldest(os.path.dirname(self._path), _PREFIX)
        except OSError as error:
            log.debug("the layers are not kept: %s", error)


def _checksum(arrangement: Arrangement, memory: LargePages) -> int:
    return zlib.adler32(memory.bytes.numpy().data, zlib.adler32(json.dumps(asdict(arrangement)).encode()))
