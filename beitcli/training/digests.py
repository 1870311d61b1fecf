"""Digests of the images that a model has learnt from, kept in its folder."""

import os
from collections.abc import Iterable

import numpy as np

from beitcli.training.work_dir import work_errors

DIGESTS = "training-digests"
"""Name of the file: the first eight bytes of each image's SHA-256, each once and in ascending order."""

_DIGEST = np.dtype(">u8")


def write_digests(digests: Iterable[bytes], folder: str) -> None:
    """Write the digests of these SHA-256 into the folder. Raises OutputError."""
    with work_errors(), open(os.path.join(folder, DIGESTS), "wb") as stream:
        stream.write(np.unique(_shortened(digests)).tobytes())


def count_learnt(path: str, digests: Iterable[bytes]) -> int:
    """The number of these SHA-256 whose images are among those of the file at `path`."""
    return int(np.isin(_shortened(digests), np.fromfile(path, _DIGEST)).sum())


def _shortened(digests: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digest[: _DIGEST.itemsize] for digest in digests), _DIGEST)
