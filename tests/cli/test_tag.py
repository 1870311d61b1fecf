"""`beit tag` as a real process: sidecars and images, run again, cleared."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from beitcli.errors import OutputError
from beitcli.jobs.observer import Silent
from beitcli.jobs.result_files import ResultFiles
from beitcli.jobs.tag import TagRequest, tag_images
from beitcli.tagging.xmp import retagged
from tests.conftest import SAMPLES
from tests.sorting.test_sorting import tiny_disk
from tests.sorting.trees import Tree, failed, fill, ok, results, tree
from tests.tagging.test_xmp import BY_OTHERS, exiftool, read_back

assert exiftool and tiny_disk  # fixtures

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLES, tmp_path / "photos", ignore=shutil.ignore_patterns("*.md"))
    lines = [ok("photos/cat.jpg", "cat"), ok("photos/boats.jpg", "ship", 0.4), failed("photos/coffee.jpg")]
    return results(tmp_path / "preds.jsonl", *lines, ok("https://example.org/a.jpg", "cat"))


def state(folder: Path) -> tuple[Tree, dict[str, int]]:
    """Bytes and times of all files."""
    return tree(folder), {name: (folder / name).stat().st_mtime_ns for name in tree(folder)}


@pytest.mark.usefixtures("exiftool")
def test_tagged_again_and_cleared(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    before = state(photos)
    process = beit("tag", predictions, "--dry-run", light=True)
    assert (process.returncode, process.stdout) == (0, b"")
    assert process.stderr.decode().splitlines() == [
        "4 images: 2 to be tagged, 0 as they were, 2 left, 0 failed",
        "left: 1 failed, 1 no file",
    ]
    assert state(photos) == before
    process = beit("tag", predictions, light=True)
    assert process.stderr.startswith(b"4 images: 2 tagged, 0 as they were, 2 left, 0 failed\n")
    assert sorted(tree(photos).keys() - before[0].keys()) == ["boats.jpg.xmp", "cat.jpg.xmp"]
    assert read_back(photos / "cat.jpg.xmp")["XMP-dc:Subject"] == ["cat"]
    tagged = state(photos)
    process = beit("tag", predictions, light=True)
    assert process.stderr.startswith(b"4 images: 0 tagged, 2 as they were, 2 left, 0 failed\n")
    assert state(photos) == tagged
    (tmp_path / "corrections.csv").write_text("path,label\nphotos/cat.jpg,kitten\nphotos/coffee.jpg,cup\n")
    beit("tag", predictions, "--threshold", 0.5, "--corrections", "corrections.csv", "-q", light=True)
    assert sorted(tree(photos).keys() - before[0].keys()) == ["cat.jpg.xmp", "coffee.jpg.xmp"]
    assert read_back(photos / "cat.jpg.xmp")["XMP-dc:Subject"] == ["kitten"]
    process = beit("tag", predictions, "--clear", light=True)
    assert process.stderr.startswith(b"4 images: 2 cleared, 1 as they were, 1 left, 0 failed\n")
    assert state(photos) == before


@pytest.mark.usefixtures("exiftool")
def test_sidecars_of_other_programs_are_kept_in_either_style(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    sidecar, link = tmp_path / "photos" / "cat.xmp", tmp_path / "photos" / "boats.xmp"
    sidecar.write_bytes(BY_OTHERS)
    sidecar.chmod(0o640)
    (tmp_path / "elsewhere.xmp").write_bytes(BY_OTHERS)
    link.symlink_to("../elsewhere.xmp")
    before = read_back(sidecar)
    assert beit("tag", predictions, "--sidecar-style", "stem", light=True).returncode == 0
    assert read_back(sidecar)["XMP-dc:Subject"] == ["holiday", "sea, sand", "cat"]
    assert (sidecar.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)
    assert read_back(tmp_path / "elsewhere.xmp")["XMP-dc:Subject"] == ["holiday", "sea, sand", "ship"]
    assert beit("tag", predictions, "--clear", light=True).returncode == 0
    assert read_back(sidecar) == before == read_back(link)


def test_only_embed_writes_into_images_and_never_into_raws(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    before = tree(photos)
    fill(photos, "raw.CR2")
    predictions.write_text(predictions.read_text() + ok("photos/raw.CR2", "dog") + "\n")
    process = beit("tag", predictions, "--embed", light=True)
    assert process.stderr.startswith(b"5 images: 3 tagged, 0 as they were, 2 left, 0 failed\n")
    assert tree(photos).keys() == {*before, "raw.CR2", "raw.CR2.xmp"}
    data = (photos / "cat.jpg").read_bytes()
    assert data != before["cat.jpg"]
    assert retagged(data, ("cat",)) is None
    assert (photos / "coffee.jpg").read_bytes() == before["coffee.jpg"]
    tagged = state(photos)
    beit("tag", predictions, "--embed", light=True)
    assert state(photos) == tagged
    beit("tag", predictions, "--embed", "--clear", light=True)
    assert tree(photos).keys() == {*before, "raw.CR2"}
    assert retagged((photos / "cat.jpg").read_bytes(), ()) is None


def test_a_sidecar_of_two_images_has_the_first_ones_label(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    fill(tmp_path / "photos", "cat.png")
    predictions.write_text(predictions.read_text() + ok("photos/cat.png", "dog") + "\n")
    process = beit("tag", predictions, "--sidecar-style", "stem", light=True)
    assert b"1 sidecar of another image" in process.stderr
    assert retagged((tmp_path / "photos" / "cat.xmp").read_bytes(), ("cat",)) is None


def test_what_cannot_be_tagged_is_named_and_kept(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat.jpg.xmp").write_text("<x:xmpmeta broken")
    os.remove(tmp_path / "photos" / "boats.jpg")
    process = beit("tag", predictions, "-q", light=True)
    assert process.returncode == 3
    lines = process.stderr.decode().splitlines()
    assert lines[0].startswith("`photos/cat.jpg`: ")
    assert lines[1:] == [
        "`photos/boats.jpg`: no such file: was it moved or deleted since?",
        "beit: error: 2 images could not be tagged",
    ]
    assert (tmp_path / "photos" / "cat.jpg.xmp").read_text() == "<x:xmpmeta broken"


def test_a_full_disk_ends_it_and_keeps_what_is_there(tmp_path: Path, tiny_disk: Path) -> None:
    names = [f"{number}.jpg" for number in range(40)]
    fill(tiny_disk, *names, size=1)
    request = TagRequest(
        ResultFiles((str(results(tmp_path / "p.jsonl", *(ok(tiny_disk / name, "cat") for name in names))),))
    )
    with pytest.raises(OutputError, match="No space left on device") as raised:
        tag_images(request, Silent())
    assert "make room" in str(raised.value.hint)
    sidecars = [data for name, data in tree(tiny_disk).items() if name.endswith(".xmp")]
    assert sidecars and set(sidecars) == {retagged(None, ("cat",))}
    assert not list(tiny_disk.glob(".*"))


def test_without_the_library(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "pyexiv2.py").write_text("raise ImportError")
    process = beit("tag", predictions, light=True)
    assert process.returncode == 2
    assert process.stderr == b"beit: error: tags need pyexiv2\nhint: `pip install 'beitcli[xmp]'`\n"


def test_tags_go_along_when_images_are_sorted(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    beit("tag", predictions, light=True)
    beit("sort", predictions, "--to", "sorted", "--move", "--failures", "leave", light=True)
    found = {"cat/cat.jpg", "cat/cat.jpg.xmp", "ship/boats.jpg", "ship/boats.jpg.xmp"}
    assert tree(tmp_path / "sorted").keys() == found
