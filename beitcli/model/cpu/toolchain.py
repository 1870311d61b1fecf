"""The machine's C++ compiler, and the libraries that it has compiled."""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from glob import escape, glob
from tempfile import TemporaryDirectory
from threading import Lock

from beitcli.file_system import sync
from beitcli.model.cpu.cache import cache_folder

log = logging.getLogger(__name__)

_LOCK = Lock()

_CHECKSUM = 32
"""Bytes of SHA-256 behind a library."""

_FLAGS = ("-O3", "-w", "-fopenmp", "-shared", "-fPIC")


def compiler() -> str | None:
    """The path of the C++ compiler: the one that `CXX` names, or the first of the usual ones that is installed."""
    names = (os.environ.get("CXX") or "g++", "g++", "clang++", "c++")
    return next(filter(None, map(shutil.which, names)), None)


def compiled_library(source: str, flags: Sequence[str], name: str) -> ctypes.CDLL:
    """The library of a C++ file: from the cache, or compiled now if it is missing or damaged there.

    All headers beside it count as its own. `name` is for the notice. Raises OSError where it can neither be compiled
    nor loaded.
    """
    flags = (*_FLAGS, *flags)
    headers = glob(os.path.join(escape(os.path.dirname(source)), "*.h"))
    digest = _digest((source, *sorted(headers)), flags)
    stem = os.path.splitext(os.path.basename(source))[0]
    path = os.path.join(cache_folder(), f"{stem}-{digest}.so")
    with _LOCK:  # the check of int8 loads its model beside the run's
        if not _is_whole(path):
            _compile(source, flags, path, name)
        return ctypes.CDLL(path)


def _digest(sources: Sequence[str], flags: Sequence[str]) -> str:
    digest = hashlib.sha256(" ".join(flags).encode())
    for source in sources:
        with open(source, "rb") as stream:
            digest.update(stream.read())
    return digest.hexdigest()[:16]


def _is_whole(path: str) -> bool:
    """True if the file is there and ends with its checksum: a damaged library crashes every process that loads it."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError:
        return False
    return content.endswith(hashlib.sha256(content[:-_CHECKSUM]).digest())


def _compile(source: str, flags: Sequence[str], path: str, name: str) -> None:
    found = compiler()
    if found is None:
        raise OSError("no C++ compiler")
    log.info("compiling %s, once for all models (`compile=False` skips this)", name, extra={"stage": "compiling"})
    with TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        built = os.path.join(folder, "built")
        done = subprocess.run([found, *flags, source, "-o", built], stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode:
            raise OSError(f"{found} failed: {done.stderr.decode(errors='replace').partition(chr(10))[0]}")
        with open(built, "r+b") as stream:
            stream.write(hashlib.sha256(stream.read()).digest())  # behind the end of a library there may be anything
            stream.flush()
            sync(stream.fileno())
        os.replace(built, path)
