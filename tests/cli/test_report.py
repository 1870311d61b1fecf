"""`beit report`, and the pages of `beit eval` and `beit train`, as real processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from beitcli.jobs.gallery_page import MOST_EMBEDDED
from tests.conftest import ROOT, SAMPLES
from tests.gallery.pages import photographs, predicted, report, write_records
from tests.gallery.test_reports import data_of

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]
DEMO = ("-m", "demo", "--dtype", "fp32")
SAMPLE_CLASSES = {"cat.jpg": "cat", "boats.jpg": "ship", "coffee.jpg": "truck"}


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """The samples in three class folders, one of them twice, and a broken image."""
    for name, label in SAMPLE_CLASSES.items():
        (tmp_path / "val" / label).mkdir(parents=True)
        shutil.copy(SAMPLES / name, tmp_path / "val" / label)
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "val" / "cat" / "copy.jpg")
    (tmp_path / "val" / "ship" / "broken.jpg").write_bytes(b"no image")
    return tmp_path / "val"


def test_a_folder_is_classified_first_and_only_once(beit: Beit, val: Path, tmp_path: Path) -> None:
    process = beit("report", "val", *DEMO, "--out", "val.html")
    assert (process.returncode, process.stdout) == (0, b"")
    assert b"failed: 1 not_an_image\n" in process.stderr
    assert process.stderr.endswith(b"5 images in `val.html`: 4 thumbnails made now\n")
    data = data_of(tmp_path / "val.html")
    assert (data["title"], data["about"], len(data["labels"])) == ("val", [["model", "demo"]], 10)
    assert Counter(name[17:] for name in data["thumbnails"] if name).most_common(1)[0][1] == 2
    page = (tmp_path / "val.html").read_bytes()
    (tmp_path / "val.html").unlink()
    again = beit("report", "val", *DEMO, "--out", "val.html")
    assert b"5 images: 4 kept, 0 decoded" in again.stderr
    assert (tmp_path / "val.html").read_bytes() == page


def test_the_page_of_an_evaluation_and_of_its_json(beit: Beit, val: Path, tmp_path: Path) -> None:
    process = beit("eval", "val", *DEMO, "--json", "eval.json", "--report", "eval.html", "--fail-on", "never")
    assert process.returncode == 0, process.stderr
    data = data_of(tmp_path / "eval.html")
    assert [data["labels"][label] for label in data["true"]] == ["cat", "cat", "ship", "ship", "truck"]
    assert data["figures"]["top1"]["value"] == 0.75
    assert [failure[1] for failure in data["failures"]] == ["not_an_image"]
    assert len(data["predictions"][0]) == 10  # five labels with their scores
    report(tmp_path / "eval.json", out=tmp_path / "json.html")
    assert data_of(tmp_path / "json.html")["figures"] == data["figures"]
    assert data_of(tmp_path / "json.html")["name"] == ["coffee.jpg", "broken.jpg"]


def test_the_page_of_a_training_shows_its_validated_images(beit: Beit, tiny_beit: Path, tmp_path: Path) -> None:
    for number, path in enumerate(photographs(tmp_path / "made", 24)):
        folder = tmp_path / "train" / ("left", "right")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder)
    process = beit("train", "train", "-m", tiny_beit, "--dtype", "fp32", "--out", "model", "--report", "train.html")
    assert process.returncode == 0, process.stderr
    data = data_of(tmp_path / "train.html")
    rows = (tmp_path / "model" / "validation.csv").read_text().splitlines()[1:]
    assert len(rows) == len(data["name"]) > 0
    assert data["figures"]["images"] == len(rows)
    assert [data["labels"][label] for label in data["true"]] == [row.split(",")[1] for row in rows]


@pytest.mark.slow
def test_a_killed_run_leaves_the_old_page_and_its_thumbnails_are_not_made_again(beit: Beit, tmp_path: Path) -> None:
    [path] = photographs(tmp_path / "in", 1)
    paths = [path.with_name(f"{number}.jpg") for number in range(MOST_EMBEDDED + 1)]
    for each in paths:
        os.link(path, each)
    write_records(tmp_path / "preds.csv", predicted([str(each) for each in paths]))
    (tmp_path / "page.html").write_text("the old page")
    command = [sys.executable, "-m", "beitcli", "report", "preds.csv", "--out", "page.html"]
    made = 0
    for more in (1, 300, 700):
        process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=-3)
        until = made + more
        while (made := len(list((tmp_path / "page_files").rglob("*.thumbnail")))) < until and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "page.html").read_text() == "the old page"
    made = len(list((tmp_path / "page_files").rglob("*.thumbnail")))
    process_at_last = beit("report", "preds.csv", "--out", "page.html")
    assert f"{MOST_EMBEDDED + 1 - made} thumbnails made now".encode() in process_at_last.stderr
    assert sum(map(bool, data_of(tmp_path / "page.html")["thumbnails"])) == MOST_EMBEDDED + 1
    assert not list((tmp_path / "page_files").rglob("*.part"))
