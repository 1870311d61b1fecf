"""Made pictures are like photographs, and those of the user are taken as they are, without the broken ones."""

import os
from pathlib import Path

import pytest
from PIL import Image

from beitcli.bench.pictures import make_pictures, readable_files
from beitcli.errors import UsageError
from beitcli.model.recipe import paper_recipe
from beitcli.records import Source
from tests.conftest import SAMPLES


def test_made_pictures_have_the_size_of_photographs(made_pictures: list[str], tmp_path: Path) -> None:
    again = make_pictures(2, str(tmp_path / "again"))
    assert len({Path(path).read_bytes() for path in made_pictures}) == 5
    assert [Path(path).read_bytes() for path in again] == [Path(path).read_bytes() for path in made_pictures[:2]]
    for path in made_pictures:
        assert 40_000 < os.path.getsize(path) < 60_000
        with Image.open(path) as image:
            assert image.size == (500, 375)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes((SAMPLES / "cat.jpg").read_bytes()[:500])
    return path


def test_only_what_can_be_read_is_measured(broken: Path, tmp_path: Path) -> None:
    names = [SAMPLES / "cat.jpg", broken, SAMPLES / "boats.jpg", SAMPLES / "coffee.jpg"]
    found = (Source(str(name)) for name in names)
    paths, left_out = readable_files(found, 3, str(tmp_path / "fetched"), paper_recipe(32), 1)
    assert paths == [str(SAMPLES / "cat.jpg"), str(SAMPLES / "boats.jpg")]
    assert left_out == 1


def test_nothing_to_measure(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the pictures"):
        readable_files(iter([Source(str(broken))]), 9, str(tmp_path / "fetched"), paper_recipe(32), 0)
