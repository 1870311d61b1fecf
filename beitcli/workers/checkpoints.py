"""Checkpoints on other machines: found at the same path or in the Hub's cache, else sent there."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from beitcli.errors import BeitError
from beitcli.model.checkpoint import Checkpoint, Repository


def checkpoint_here(checkpoint: Checkpoint, digest: str | None) -> Checkpoint | str:
    """The checkpoint with its files as they are found here, whose digest this is; else the folder to put them into.

    Without a digest it is where it was. Nothing is downloaded.
    """
    if digest is None:
        return checkpoint
    sent = _sent_folder(digest)
    for candidate in _candidates(checkpoint, sent):
        with suppress(BeitError):
            if candidate.content_digest() == digest:
                return candidate
    return sent


def files_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The content of the checkpoint's files by their names. Raises ModelError, OSError."""
    files = {}
    for path in checkpoint.files():
        with open(path, "rb") as stream:
            files[os.path.basename(path)] = stream.read()
    return files


def put(files: Mapping[str, bytes], folder: str) -> None:
    """Write the files into a new folder, complete or not at all; leave one that is there."""
    if os.path.isdir(folder):
        return
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    part = tempfile.mkdtemp(prefix="part-", dir=os.path.dirname(folder))
    try:
        for name, content in files.items():
            with open(os.path.join(part, name), "wb") as stream:
                stream.write(content)
        with suppress(OSError):  # another worker of this machine was faster
            os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _candidates(checkpoint: Checkpoint, sent: str) -> Iterator[Checkpoint]:
    yield checkpoint
    repository = checkpoint.repository
    if repository.on_hub and repository.is_here("config.json"):
        config = repository.file("config.json")
        if config is not None:
            yield _moved(checkpoint, repository, os.path.dirname(config))
    if os.path.isdir(sent):
        yield _moved(checkpoint, Repository(sent, None, on_hub=False), sent)


def _moved(checkpoint: Checkpoint, repository: Repository, folder: str) -> Checkpoint:
    described = checkpoint.processor_file
    processor = described and os.path.join(folder, os.path.basename(described))
    return replace(checkpoint, repository=repository, folder=folder, processor_file=processor)


def _sent_folder(digest: str) -> str:
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "beit", "models", digest)
