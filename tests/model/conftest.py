"""Fixtures of the tests of `model/`: modified checkpoints, and an object that detects unpickling."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def trap() -> Callable[[Path], object]:
    """Make an object that creates a file when it is unpickled."""
    return Trap


@pytest.fixture
def copy_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A private copy of a checkpoint folder with other values in its `config.json`; None deletes the key."""

    def copy(folder: Path | str, **changes: Any) -> Path:
        target = tmp_path_factory.mktemp("copy") / "checkpoint"
        shutil.copytree(folder, target)
        config = json.loads((target / "config.json").read_text()) | changes
        kept = {key: value for key, value in config.items() if value is not None}
        (target / "config.json").write_text(json.dumps(kept))
        return target

    return copy
