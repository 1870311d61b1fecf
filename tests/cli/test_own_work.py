"""A run and the work of its user: rows edited by hand, and rows that another list would replace."""

import gzip
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests import preloaded
from tests.cli.batches import batch, grow

DEMO = ("-m", "demo", "--dtype", "fp32", "-j", 0)
RUN = ("images", *DEMO, "-k", 1, "--out")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images with their rows in `k.csv`, as seen from here on by runs that load no model."""
    folder = tmp_path_factory.mktemp("done")
    grow(folder / "images", ["a.png", "b.png"])
    assert batch(folder, *RUN, "k.csv").returncode == 0
    return folder


@pytest.fixture
def work(done: Path, tmp_path: Path) -> Path:
    """A copy of it, with a new inode for each file."""
    return Path(shutil.copytree(done, tmp_path / "work"))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"images", "k.csv.ledger"}


def correct(path: Path) -> bytes:
    """Correct a row by hand, which leaves the size as it was."""
    path.write_bytes(path.read_bytes().replace(b",ok,", b",OK,", 1))
    return path.read_bytes()


def test_rows_edited_by_hand_are_kept_and_numbered(work: Path) -> None:
    out = work / "k.csv"
    written = out.read_bytes()
    first = correct(out)
    assert "`k.csv` is not what the last run wrote: what it held is in `k.csv.edited`" in say(work)
    assert (out.read_bytes(), (work / "k.csv.edited").read_bytes()) == (written, first)
    assert correct(out) == first
    grow(work / "images", ["c.png"], seed=3)
    assert "`k.csv.edited2`" in say(work)
    written = out.read_bytes()
    out.write_bytes(written + b"a note\n")
    assert "`k.csv.edited3`" in say(work, "--fresh")
    assert names(work) == {"k.csv", "k.csv.edited", "k.csv.edited2", "k.csv.edited3", "k.csv.ledger.old"}
    assert out.read_bytes() == written


def say(folder: Path, *options: object) -> str:
    process = batch(folder, *RUN, "k.csv", *options)
    assert process.returncode == 0, process.stderr
    return process.stderr


def touch(work: Path) -> None:
    os.utime(work / "k.csv", (1, 1))


def lose_what_it_knows(work: Path) -> None:
    """Make its ledger one of an earlier version, which knew nothing of its file's content."""
    (work / "k.csv").write_text("edited")
    with closing(sqlite3.connect(work / "k.csv.ledger")) as database, database:
        database.execute("DELETE FROM state WHERE key = 'output_files'")


@pytest.mark.parametrize(
    "meddle", [lambda _: None, touch, lose_what_it_knows, lambda work: (work / "k.csv").write_text("")]
)
def test_a_file_that_nobody_edited_is_not_kept(work: Path, meddle: Callable[[Path], object]) -> None:
    written = (work / "k.csv").read_bytes()
    meddle(work)
    assert "is not what" not in say(work)
    assert names(work) == {"k.csv"}
    assert (work / "k.csv").read_bytes() == written


@pytest.mark.parametrize("options", [(), ("--fresh",)])
def test_a_file_that_was_there_before_the_first_run_is_kept(work: Path, options: tuple[str, ...]) -> None:
    for path in work.glob("k.csv*"):
        path.unlink()
    (work / "k.csv").write_text("another's work")
    assert "`k.csv` is not what the last run wrote: what it held is in `k.csv.edited`" in say(work, *options)
    assert (work / "k.csv.edited").read_text() == "another's work"
    assert "is not what" not in say(work)
    assert names(work) == {"k.csv", "k.csv.edited"}


def test_without_a_ledger_a_file_is_replaced(work: Path) -> None:
    (work / "k.csv").write_text("another's work, or that of the last run")
    assert "is not what" not in say(work, "--no-ledger")
    assert names(work) == {"k.csv"}


def test_other_images_warn_before_they_replace_the_rows(work: Path) -> None:
    """As `xargs -n 8 beit batch --out k.csv` makes it."""
    grow(work / "more", ["c.png"], seed=2)
    warning = "none of the 1 images of this run was in `k.csv` before, and its rows are replaced"
    assert warning in batch(work, "more", *DEMO, "-k", 1, "--out", "k.csv").stderr
    for inputs in (["more"], ["more", "images"], ["images"]):
        assert "none of the" not in batch(work, *inputs, *DEMO, "-k", 1, "--out", "k.csv").stderr


EMPTY = ("--files-from", "-", *DEMO, "-k", 1, "--out")


@pytest.mark.parametrize("options", [(), ("--fresh",), ("--no-ledger",), ("--dry-run",)])
def test_an_empty_list_empties_no_file_that_had_rows(work: Path, options: tuple[str, ...]) -> None:
    before = {path: path.read_bytes() for path in work.iterdir() if path.is_file()}
    process = batch(work, *EMPTY, "k.csv", *options)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-2:] == [
        "beit: error: the list is empty, and `k.csv` has rows: did the command that makes it fail?",
        "hint: nothing has been changed; --allow-empty writes a file without rows",
    ]
    assert {path: path.read_bytes() for path in work.iterdir() if path.is_file()} == before


def test_an_empty_list_is_a_run_where_there_were_no_rows_or_it_is_allowed(work: Path) -> None:
    header = (work / "k.csv").read_text().splitlines(keepends=True)[0]
    for _ in range(2):
        assert batch(work, *EMPTY, "new.csv.gz").returncode == 0
        assert batch(work, *EMPTY, "stream.csv", "--no-ledger").returncode == 0
    assert gzip.decompress((work / "new.csv.gz").read_bytes()).decode() == header
    assert batch(work, *EMPTY, "k.csv", "--allow-empty").returncode == 0
    assert (work / "k.csv").read_text() == header
    assert batch(work, *EMPTY, "k.csv").returncode == 0
    assert "--allow-empty is for a file" in batch(work, *EMPTY[:-1], "--allow-empty").stderr


@pytest.mark.slow
def test_an_edited_report_of_an_evaluation_is_kept(work: Path) -> None:
    (work / "images").rename(work / "cat")
    (work / "val").mkdir()
    (work / "cat").rename(work / "val" / "cat")
    command = ["eval", "val", *map(str, DEMO), "--json", "eval.json", "--mistakes", "mistakes.csv"]
    for streamed in (["--mistakes", "/dev/stderr"], []):
        process = preloaded.beit([*command, *streamed], work)
        assert process.returncode == 0, process.stderr
        assert b"is not what" not in process.stderr
    for name in ("eval.json", "mistakes.csv"):
        (work / name).write_text("a note")
    process = preloaded.beit(command, work)
    for name in ("eval.json", "mistakes.csv"):
        assert f"what it held is in `{name}.edited`" in process.stderr.decode()
        assert (work / f"{name}.edited").read_text() == "a note"
