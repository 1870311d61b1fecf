"""What the tests of `bench/` share: the smallest checkpoint it makes, a few pictures, and their list."""

import os
from pathlib import Path

import pytest

from beitcli.bench.pictures import make_pictures
from beitcli.bench.shapes import TINY
from beitcli.bench.weights import make_checkpoint


@pytest.fixture(scope="session")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_checkpoint(TINY, str(tmp_path_factory.mktemp("made") / "model")))


@pytest.fixture(scope="session")
def made_pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_pictures(5, str(tmp_path_factory.mktemp("made") / "pictures"))


@pytest.fixture
def listed(made_pictures: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "list"
    path.write_bytes(b"".join(os.fsencode(picture) + b"\0" for picture in made_pictures))
    return path
