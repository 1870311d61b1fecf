"""`beit sort` as a real process: what it prints, its exit statuses, and URLs."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, SAMPLES
from tests.inputs.test_fetch import Request, Server, reply, serve
from tests.sorting.trees import failed, fill, ok, results, tree

assert serve  # a fixture

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    fill(tmp_path, "photos/a.jpg", "photos/b.jpg", "photos/b.xmp", "photos/c.jpg")
    lines = [ok("photos/a.jpg", "cat"), ok("photos/b.jpg", "dog", 0.4), failed("photos/c.jpg")]
    return results(tmp_path / "preds.jsonl", *lines)


def test_from_photographs_to_folders_and_back(beit: Beit, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "photos")
    beit("batch", "photos", "-m", "demo", "-q", "--out", "preds.parquet")
    before = tree(tmp_path)
    process = beit("sort", "preds.parquet", "--to", "sorted", "--move", light=True)
    assert (process.returncode, process.stdout) == (0, b"")
    assert process.stderr.decode().splitlines() == [
        "1 to ship/",
        "1 to cat/",
        "1 to automobile/",
        "3 images: 3 moved, 0 already there, 0 left, 0 failed",
    ]
    assert (tmp_path / "sorted" / "cat" / "cat.jpg").read_bytes() == (SAMPLES / "cat.jpg").read_bytes()
    process = beit("sort", "--undo", "sorted", light=True)
    assert (process.returncode, process.stderr) == (0, b"3 files moved back, 0 copies and links deleted\n")
    assert tree(tmp_path) == before


def test_a_dry_run_prints_what_would_be_done(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    process = beit("sort", predictions, "--to", "sorted", "--threshold", 0.5, "--dry-run", light=True)
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout == b"1 cat/\n1 failed/truncated/\n1 unsure/\n0 already there\n0 that cannot be sorted\n"
    assert (tree(tmp_path), (tmp_path / "sorted").exists()) == (before, False)
    beit("sort", predictions, "--to", "sorted", "-q", light=True)
    process = beit("sort", "--undo", "sorted", "--dry-run", light=True)
    assert (process.returncode, process.stdout) == (0, b"0 files to move back\n4 copies and links to delete\n")
    assert (tmp_path / "sorted").exists()


def test_what_was_not_done_is_named_also_if_quiet(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "a.jpg").unlink()
    process = beit("sort", predictions, "--to", "sorted", "--failures", "leave", light=True)
    assert process.returncode == 3
    assert process.stderr.decode().splitlines() == [
        "1 to dog/",
        "3 images: 1 copied, 0 already there, 1 left, 1 failed",
        "with them: 1 sidecars",
        "left: 1 failed",
        "`photos/a.jpg`: no such file: was it moved or deleted since?",
        "beit: error: 1 images could not be sorted",
    ]
    (tmp_path / "photos" / "b.jpg").write_bytes(b"edited")
    process = beit("sort", "--undo", "sorted", "-q", light=True)
    assert process.returncode == 3
    assert process.stderr.decode().splitlines() == [
        "`dog/b.jpg`: it differs from its original",
        "beit: error: 1 files are left in `sorted`",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preds.jsonl"], "no folder to sort into\nhint: name one by --to DIR"),
        (["--to", "sorted"], "no results\nhint: name a file of `beit batch`"),
        (["preds.jsonl", "--to", "sorted", "--move", "--copy"], "--copy and --move exclude each other"),
        (["preds.jsonl", "--to", "preds.jsonl"], "--to preds.jsonl is no folder"),
        (["preds.jsonl", "--to", "sorted", "--threshold", "nan"], "--threshold nan: no score"),
        (["gone.csv", "--to", "sorted"], "`gone.csv` does not exist"),
        (["photos/a.jpg", "--to", "sorted"], "`photos/a.jpg`: no format has the suffix `.jpg`"),
        (["preds.jsonl", "--to", "sorted", "--corrections", "photos"], "`photos` is no file"),
        (["--undo", "photos"], "`photos` has no journal of `beit sort`: there is nothing to undo"),
        (["--undo", "photos", "preds.jsonl"], "--undo photos takes no results\nhint: name the sorted folder alone"),
    ],
)
def test_usage_errors(beit: Beit, predictions: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    before = tree(tmp_path)
    process = beit("sort", *arguments, light=True)
    assert process.returncode == 2, process.stderr
    assert process.stderr.decode().startswith(f"beit: error: {message}")
    assert (tree(tmp_path), (tmp_path / "sorted").exists()) == (before, False)


def test_another_run_has_the_folder(beit: Beit, predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "sorted").mkdir()
    hold = """
from beitcli.outputs.lock import exclusive
with exclusive("sorted/beit-sort.jsonl", wait=False):
    print(flush=True)
    input()
"""
    command, pipe = [sys.executable, "-c", hold], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout and holder.stdout.readline()
        process = beit("sort", predictions, "--to", "sorted", light=True)
        holder.communicate(b"\n")
    assert process.returncode == 4
    assert b"another run is writing `" in process.stderr


def test_urls_are_downloaded_again(beit: Beit, tmp_path: Path, serve: Callable[..., Server]) -> None:
    paths = ["a/x.jpg?size=1", "b/x.jpg", "c.jpg", "%2e%2e%2fetc", "d/"]
    is_there = False

    def by_path(request: Request) -> None:
        (reply(404) if request.path == "/c.jpg" and not is_there else reply(200, request.path.encode()))(request)

    with serve(by_path) as server:
        predictions = results(tmp_path / "p.jsonl", *(ok(f"{server.url}/{path}", "cat") for path in paths))
        process = beit("sort", predictions, "--to", "sorted", light=True)
        assert process.returncode == 3
        assert f"`{server.url}/c.jpg`: http_404" in process.stderr.decode()
        found = {"x.jpg": paths[0], "x_2.jpg": paths[1], "_._etc": paths[3], "image": "d/"}
        assert tree(tmp_path / "sorted") == {f"cat/{name}": f"/{path}".encode() for name, path in found.items()}
        count, is_there = len(server.requests), True
        assert beit("sort", predictions, "--to", "sorted", light=True).returncode == 0
        assert (len(tree(tmp_path / "sorted")), len(server.requests)) == (5, count + 1)
    assert beit("sort", predictions, "--to", "sorted", "--move", light=True).returncode == 0
    (tmp_path / "sorted" / "cat" / "image").write_bytes(b"edited")
    process = beit("sort", "--undo", "sorted", light=True)
    assert (process.returncode, tree(tmp_path / "sorted").keys()) == (3, {"cat/image"})


def test_many_folders_are_summed_up(beit: Beit, tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(30)]
    fill(tmp_path, *names)
    predictions = results(tmp_path / "p.jsonl", *(ok(name, f"label {name}") for name in names))
    lines = beit("sort", predictions, "--to", "sorted", light=True).stderr.decode().splitlines()
    assert lines[20:] == [
        "10 to 10 others, which --dry-run lists",
        "30 images: 30 copied, 0 already there, 0 left, 0 failed",
    ]
