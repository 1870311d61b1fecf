"""Full disks, read-only folders, damaged ledgers: one clear error, and the next run resumes.

The final name never holds a partial file, and committed results are not lost.
"""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.batches import (
    DEMO,
    batch,
    bound_by_modes,
    clean_environment,
    counts,
    grow,
    light,
    numbered,
    skip_unless_modes_bind,
    stored_results,
)

TOTAL = 160
SAME = ("images", *DEMO, "-b", 4, "-j", 2)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    grow(folder / "images", numbered(TOTAL))
    process = batch(folder, *SAME, "--out", "out.csv", env=clean_environment())
    assert counts(process.stderr) == (TOTAL, 0, TOTAL, 0, 0)
    return folder


@pytest.fixture
def images(first_run: Path, tmp_path: Path) -> Path:
    """A folder with the images alone."""
    (tmp_path / "images").symlink_to(first_run / "images")
    return tmp_path


@pytest.fixture
def finished(first_run: Path, images: Path) -> Path:
    """A folder with a finished run."""
    for name in ("out.csv", "out.csv.ledger"):
        shutil.copy2(first_run / name, images)
    return images


def error(process: "subprocess.CompletedProcess[str]") -> str:
    """The error, one line, with its hint."""
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    lines = process.stderr.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("beit: error: ")]
    assert all(line.startswith("hint: ") for line in lines[at + 1 :]), lines
    return "\n".join(lines[at:])


def limit(size: int) -> None:
    """Limit the size of files: writing beyond it fails with EFBIG, as Python ignores the signal."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    disk = tmp_path_factory.mktemp("tmpfs")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_run_and_room_lets_it_go_on(
    first_run: Path, images: Path, small_disk: Path
) -> None:
    same = (*SAME, "--out", small_disk / "out.csv")
    message = error(batch(images, *same))
    assert "no room" in message
    assert "hint: make room" in message
    assert {*os.listdir(small_disk)} <= {"out.csv.ledger", "out.csv.ledger-wal"}
    kept = stored_results(small_disk / "out.csv.ledger")
    assert 0 < kept < TOTAL
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    assert counts(batch(images, *same).stderr) == (TOTAL, kept, TOTAL - kept, 0, 0)
    assert (small_disk / "out.csv").read_bytes() == (first_run / "out.csv").read_bytes()
    assert sorted(os.listdir(small_disk)) == ["out.csv", "out.csv.ledger"]


@pytest.mark.slow
def test_no_room_for_the_file_leaves_the_old_one(finished: Path, small_disk: Path) -> None:
    expected = (finished / "out.csv").read_bytes()
    shutil.copy2(finished / "out.csv.ledger", small_disk)
    (small_disk / "out.csv").write_text("before")
    with open(small_disk / "filler", "wb") as filler:
        filler.write(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 16_384))
    message = error(light(finished, *SAME, "--out", small_disk / "out.csv"))
    assert "No space left" in message or "no room" in message
    assert "hint: make room" in message
    assert (small_disk / "out.csv").read_text() == "before"
    os.unlink(small_disk / "filler")
    assert counts(light(finished, *SAME, "--out", small_disk / "out.csv").stderr).kept == TOTAL
    assert (small_disk / "out.csv").read_bytes() == expected
    assert sorted(os.listdir(small_disk)) == ["out.csv", "out.csv.edited", "out.csv.ledger"]  # "before" is not ours


def test_no_room_for_anything_is_one_error(images: Path, small_disk: Path) -> None:
    with open(small_disk / "filler", "wb") as filler:
        filler.write(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    message = error(light(images, *SAME, "--out", small_disk / "out.csv"))
    assert "No space left" in message or "no room" in message
    assert "hint: make room" in message
    assert not (small_disk / "out.csv").exists()


@pytest.mark.slow
def test_a_ledger_that_may_not_grow_stops_the_run(first_run: Path, images: Path) -> None:
    message = error(batch(images, *SAME, "--out", "out.csv", preexec_fn=partial(limit, 200_000)))
    assert "ledger" in message
    assert not [name for name in os.listdir(images) if name in ("out.csv", "out.csv.part", "out.csv.lock")]
    kept = stored_results(images / "out.csv.ledger")
    assert 0 < kept < TOTAL
    assert counts(batch(images, *SAME, "--out", "out.csv").stderr) == (TOTAL, kept, TOTAL - kept, 0, 0)
    assert (images / "out.csv").read_bytes() == (first_run / "out.csv").read_bytes()


@pytest.mark.parametrize("before", ["before", None])
def test_a_file_that_may_not_grow_is_not_replaced(finished: Path, before: str | None) -> None:
    out = finished / "out.csv"
    expected = out.read_bytes()
    out.unlink()
    if before:
        out.write_text(before)
    message = error(light(finished, *SAME, "--out", "out.csv", preexec_fn=partial(limit, 16_000)))
    assert "cannot write the records" in message
    assert "too large" in message
    assert (out.read_text() if out.exists() else None) == before
    left = {"out.csv", "out.csv.ledger-wal"}  # that the run ended so is not in the ledger, which may not grow either
    kept = ["out.csv.edited"] if before else []
    assert sorted({*os.listdir(finished)} - left) == ["images", *kept, "out.csv.ledger"]
    assert counts(light(finished, *SAME, "--out", "out.csv").stderr).kept == TOTAL
    assert out.read_bytes() == expected


@pytest.mark.parametrize("closed", ["folder", "ledger"])
def test_read_only_files_and_folders_are_one_error(finished: Path, closed: str) -> None:
    skip_unless_modes_bind(finished)
    before = {name: (finished / name).read_bytes() for name in ("out.csv", "out.csv.ledger")}
    path = {"folder": finished, "ledger": finished / "out.csv.ledger"}[closed]
    mode = path.stat().st_mode
    path.chmod(0o555 if closed == "folder" else 0o444)
    settings: dict[str, Any] = {"preexec_fn": bound_by_modes}
    message = error(light(finished, *SAME, "-k", 3, "--out", "out.csv", **settings))
    assert ("may not be written to" if closed == "folder" else "cannot use the ledger") in message
    assert {name: (finished / name).read_bytes() for name in before} == before
    assert sorted(os.listdir(finished)) == ["images", "out.csv", "out.csv.ledger"]
    path.chmod(mode)
    assert counts(light(finished, *SAME, "--out", "out.csv", **settings).stderr).kept == TOTAL


def test_a_broken_ledger_is_one_error_and_fresh_starts_over(finished: Path) -> None:
    ledger = finished / "out.csv.ledger"
    broken = os.urandom(ledger.stat().st_size)
    ledger.write_bytes(broken)
    (finished / "out.csv").write_text("before")
    for options in ((), ("--dry-run",), ("-q", "--prune")):
        message = error(light(finished, *SAME, "--out", "out.csv", *options))
        assert "damaged" in message
        assert "--fresh" in message
        assert (finished / "out.csv").read_text() == "before"
        assert ledger.read_bytes() == broken
    (finished / "list").write_text("images/missing.png\n")
    process = light(finished, "--files-from", "list", *DEMO, "--out", "out.csv", "--fresh")
    assert counts(process.stderr) == (1, 0, 0, 0, 1)
    assert "images/missing.png,error" in (finished / "out.csv").read_text()
    assert Path(f"{ledger}.old").read_bytes() == broken
    assert stored_results(ledger) == 1


def test_no_room_in_the_shared_memory_costs_time_and_no_image(tmp_path: Path) -> None:
    """Lists of eight images of 3,072 bytes each do not fit, as in a container whose 64 MB are full."""
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    process = subprocess.run(
        [sys.executable, "-m", "beitcli", "classify", ".", "-m", "demo", "-q", "-j", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=partial(limit, 20_000),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count(",ok,") == 40


@pytest.mark.slow
def test_no_room_for_the_benchmarks_model_is_one_error(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "beitcli", "bench", "--shape", "tiny", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=partial(limit, 10_000),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "hint: is there room in TMPDIR?" in error(process)
