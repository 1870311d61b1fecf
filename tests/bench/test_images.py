"""Synthetic images resemble photographs; the user's are used unchanged, without broken ones."""

import os
from pathlib import Path

import pytest
from PIL import Image

from beitcli.bench.images import make_images, readable_files
from beitcli.errors import UsageError
from beitcli.model.preprocessing import paper_preprocessing
from beitcli.records import Source
from tests.conftest import SAMPLES


def test_synthetic_images_have_the_size_of_photographs(made_images: list[str], tmp_path: Path) -> None:
    again = make_images(2, str(tmp_path / "again"))
    assert len({Path(path).read_bytes() for path in made_images}) == 5
    assert [Path(path).read_bytes() for path in again] == [Path(path).read_bytes() for path in made_images[:2]]
    for path in made_images:
        assert 40_000 < os.path.getsize(path) < 60_000
        with Image.open(path) as image:
            assert image.size == (500, 375)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes((SAMPLES / "cat.jpg").read_bytes()[:500])
    return path


def test_broken_images_are_left_out(broken: Path, tmp_path: Path) -> None:
    names = [SAMPLES / "cat.jpg", broken, SAMPLES / "boats.jpg", SAMPLES / "coffee.jpg"]
    found = (Source(str(name)) for name in names)
    paths, left_out = readable_files(found, 3, str(tmp_path / "fetched"), paper_preprocessing(32), 1)
    assert paths == [str(SAMPLES / "cat.jpg"), str(SAMPLES / "boats.jpg")]
    assert left_out == 1


def test_nothing_to_measure(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none of the images"):
        readable_files(iter([Source(str(broken))]), 9, str(tmp_path / "fetched"), paper_preprocessing(32), 0)
