"""Disks that are full, folders that may not be written to, ledgers that are broken: one clear error, and on from there.

Never is there half a file under the final name, and what was committed is not lost.
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
    answered,
    batch,
    bound_by_modes,
    clean_environment,
    counts,
    grow,
    light,
    numbered,
    skip_unless_modes_bind,
)

TOTAL = 160
SAME = ("pictures", *DEMO, "-b", 4, "-j", 2)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    grow(folder / "pictures", numbered(TOTAL))
    process = batch(folder, *SAME, "--out", "out.csv", env=clean_environment())
    assert counts(process.stderr) == (TOTAL, 0, TOTAL, 0, 0)
    return folder


@pytest.fixture
def pictures(first_run: Path, tmp_path: Path) -> Path:
    """A folder with the pictures alone."""
    (tmp_path / "pictures").symlink_to(first_run / "pictures")
    return tmp_path


@pytest.fixture
def finished(first_run: Path, pictures: Path) -> Path:
    """A folder with a finished run."""
    for name in ("out.csv", "out.csv.ledger"):
        shutil.copy2(first_run / name, pictures)
    return pictures


def error(process: "subprocess.CompletedProcess[str]") -> str:
    """The error, which is one line, and its hint."""
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    lines = process.stderr.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("beit: error: ")]
    assert all(line.startswith("hint: ") for line in lines[at + 1 :]), lines
    return "\n".join(lines[at:])


def limit(size: int) -> None:
    """No file may grow beyond this: writing fails with EFBIG, as Python ignores the signal."""
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
    first_run: Path, pictures: Path, small_disk: Path
) -> None:
    same = (*SAME, "--out", small_disk / "out.csv")
    said = error(batch(pictures, *same))
    assert "no room" in said
    assert "hint: make room" in said
    assert {*os.listdir(small_disk)} <= {"out.csv.ledger", "out.csv.ledger-wal"}
    kept = answered(small_disk / "out.csv.ledger")
    assert 0 < kept < TOTAL
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    assert counts(batch(pictures, *same).stderr) == (TOTAL, kept, TOTAL - kept, 0, 0)
    assert (small_disk / "out.csv").read_bytes() == (first_run / "out.csv").read_bytes()
    assert sorted(os.listdir(small_disk)) == ["out.csv", "out.csv.ledger"]


def test_no_room_for_the_file_leaves_the_old_one(finished: Path, small_disk: Path) -> None:
    expected = (finished / "out.csv").read_bytes()
    shutil.copy2(finished / "out.csv.ledger", small_disk)
    (small_disk / "out.csv").write_text("before")
    with open(small_disk / "filler", "wb") as filler:
        filler.write(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - 16_384))
    said = error(light(finished, *SAME, "--out", small_disk / "out.csv"))
    assert "No space left" in said or "no room" in said
    assert "hint: make room" in said
    assert (small_disk / "out.csv").read_text() == "before"
    os.unlink(small_disk / "filler")
    assert counts(light(finished, *SAME, "--out", small_disk / "out.csv").stderr).kept == TOTAL
    assert (small_disk / "out.csv").read_bytes() == expected
    assert sorted(os.listdir(small_disk)) == ["out.csv", "out.csv.ledger"]


def test_no_room_for_anything_is_one_error(pictures: Path, small_disk: Path) -> None:
    with open(small_disk / "filler", "wb") as filler:
        filler.write(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    said = error(light(pictures, *SAME, "--out", small_disk / "out.csv"))
    assert "No space left" in said or "no room" in said
    assert "hint: make room" in said
    assert not (small_disk / "out.csv").exists()


@pytest.mark.slow
def test_a_ledger_that_may_not_grow_stops_the_run(first_run: Path, pictures: Path) -> None:
    said = error(batch(pictures, *SAME, "--out", "out.csv", preexec_fn=partial(limit, 200_000)))
    assert "ledger" in said
    assert not [name for name in os.listdir(pictures) if name in ("out.csv", "out.csv.part", "out.csv.lock")]
    kept = answered(pictures / "out.csv.ledger")
    assert 0 < kept < TOTAL
    assert counts(batch(pictures, *SAME, "--out", "out.csv").stderr) == (TOTAL, kept, TOTAL - kept, 0, 0)
    assert (pictures / "out.csv").read_bytes() == (first_run / "out.csv").read_bytes()


@pytest.mark.parametrize("before", ["before", None])
def test_a_file_that_may_not_grow_is_not_replaced(finished: Path, before: str | None) -> None:
    out = finished / "out.csv"
    expected = out.read_bytes()
    out.unlink()
    if before:
        out.write_text(before)
    said = error(light(finished, *SAME, "--out", "out.csv", preexec_fn=partial(limit, 8_000)))
    assert "cannot write the records" in said
    assert "too large" in said
    assert (out.read_text() if out.exists() else None) == before
    assert sorted({*os.listdir(finished)} - {"out.csv"}) == ["out.csv.ledger", "pictures"]
    assert counts(light(finished, *SAME, "--out", "out.csv").stderr).kept == TOTAL
    assert out.read_bytes() == expected


@pytest.mark.parametrize("closed", ["folder", "ledger"])
def test_what_may_not_be_written_to_is_one_error(finished: Path, closed: str) -> None:
    skip_unless_modes_bind(finished)
    before = {name: (finished / name).read_bytes() for name in ("out.csv", "out.csv.ledger")}
    path = {"folder": finished, "ledger": finished / "out.csv.ledger"}[closed]
    mode = path.stat().st_mode
    path.chmod(0o555 if closed == "folder" else 0o444)
    settings: dict[str, Any] = {"preexec_fn": bound_by_modes}
    said = error(light(finished, *SAME, "-k", 3, "--out", "out.csv", **settings))
    assert ("may not be written to" if closed == "folder" else "cannot use the ledger") in said
    assert {name: (finished / name).read_bytes() for name in before} == before
    assert sorted(os.listdir(finished)) == ["out.csv", "out.csv.ledger", "pictures"]
    path.chmod(mode)
    assert counts(light(finished, *SAME, "--out", "out.csv", **settings).stderr).kept == TOTAL


def test_a_broken_ledger_is_one_error_and_fresh_starts_over(finished: Path) -> None:
    ledger = finished / "out.csv.ledger"
    broken = os.urandom(ledger.stat().st_size)
    ledger.write_bytes(broken)
    (finished / "out.csv").write_text("before")
    for options in ((), ("--dry-run",), ("-q", "--prune")):
        said = error(light(finished, *SAME, "--out", "out.csv", *options))
        assert "damaged" in said
        assert "--fresh" in said
        assert (finished / "out.csv").read_text() == "before"
        assert ledger.read_bytes() == broken
    (finished / "list").write_text("pictures/missing.png\n")
    process = light(finished, "--files-from", "list", *DEMO, "--out", "out.csv", "--fresh")
    assert counts(process.stderr) == (1, 0, 0, 0, 1)
    assert "pictures/missing.png,error" in (finished / "out.csv").read_text()
    assert Path(f"{ledger}.old").read_bytes() == broken
    assert answered(ledger) == 1


def test_no_room_in_the_shared_memory_costs_time_and_no_picture(tmp_path: Path) -> None:
    """Lists of eight pictures of 3,072 bytes each do not fit, as where a container's 64 MB are full."""
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


def test_no_room_for_what_is_measured_with_is_one_error(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "beitcli", "bench", "--shape", "tiny", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=partial(limit, 10_000),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "hint: is there room in TMPDIR?" in error(process)
