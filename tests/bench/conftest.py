"""Fixtures of the tests of `bench/`: the smallest checkpoint, a few images, and their list."""

import os
from pathlib import Path

import pytest

from beitcli.bench.images import make_images
from beitcli.bench.shapes import TINY
from beitcli.bench.weights import make_checkpoint


@pytest.fixture(scope="session")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_checkpoint(TINY, str(tmp_path_factory.mktemp("made") / "model")))


@pytest.fixture(scope="session")
def made_images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_images(5, str(tmp_path_factory.mktemp("made") / "images"))


@pytest.fixture
def listed(made_images: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "list"
    path.write_bytes(b"".join(os.fsencode(image) + b"\0" for image in made_images))
    return path
