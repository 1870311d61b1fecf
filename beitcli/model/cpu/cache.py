"""The user's cache of what is compiled, or laid out in memory, for this machine."""

import hashlib
import json
import os
from collections.abc import Iterable

import torch

from beitcli import __version__
from beitcli.model.checkpoint import Checkpoint

_KEPT = 4
"""Files as large as a network's weights that stay in the cache, of each kind."""


def cache_folder() -> str:
    """The cache's folder, created if missing. Raises OSError where that is impossible."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "beit", "compiled")
    os.makedirs(folder, exist_ok=True)
    return folder


def network_path(prefix: str, checkpoint: Checkpoint, facts: Iterable[object]) -> str:
    """The path in the cache of what is made of a checkpoint: its name is a digest of all that it depends on.

    These are the files of the checkpoint, the versions of beit and torch, and `facts`.
    """
    files = [(os.path.realpath(path), os.stat(path)) for path in checkpoint.files()]
    everything = (
        (__version__, torch.__version__, *facts),
        json.dumps(dict(checkpoint.config), sort_keys=True),  # a probe's may differ from the file
        [(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino) for path, status in files],
    )
    name = hashlib.sha256(repr(everything).encode()).hexdigest()[:32]
    return os.path.join(cache_folder(), prefix + name)


def remove_oldest(folder: str, prefix: str) -> None:
    """Remove all but the newest files of a kind from the cache."""
    files = [entry for entry in os.scandir(folder) if entry.name.startswith(prefix)]
    files.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in files[_KEPT:]:
        os.unlink(entry.path)
