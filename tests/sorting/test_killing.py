"""Sortings and undoings that are killed: continued or undone, no file is lost, doubled or changed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.sorting.trees import fill, ok, results, tree

MODES = ("copy", "move", "hardlink", "symlink")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def kill_before_calls(mode: str, folder: Path, other: Path, every: int) -> int:
    """The number of instants at which a run was killed."""
    command = [sys.executable, "-m", "tests.sorting.killing", mode, str(folder), str(other), str(every)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert process.returncode == 0, process.stderr[-2000:]
    return int(process.stdout)


def test_killed_at_some_calls_of_the_file_system(tmp_path: Path, elsewhere: Path) -> None:
    assert kill_before_calls("move", tmp_path, elsewhere, every=23) > 10


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_killed_at_every_call_of_the_file_system(tmp_path: Path, mode: str) -> None:
    assert kill_before_calls(mode, tmp_path, tmp_path, every=1) > 50


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["copy", "move"])
def test_killed_at_every_call_between_two_file_systems(tmp_path: Path, elsewhere: Path, mode: str) -> None:
    assert kill_before_calls(mode, tmp_path, elsewhere, every=1) > 100


def run(*arguments: object) -> int:
    command = [sys.executable, "-m", "beitcli", "sort", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode


def killed_within(seconds: float, *arguments: object) -> bool:
    """True if `beit sort` was killed after its first steps, at a random instant of so many seconds."""
    journal = Path(str(arguments[-1])) / "beit-sort.jsonl"
    before = journal.stat().st_size if journal.exists() else 0
    command = [sys.executable, "-m", "beitcli", "sort", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and (not journal.exists() or journal.stat().st_size <= before):
        time.sleep(0.001)
    time.sleep(random.uniform(0, seconds))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_20_random_instants(tmp_path: Path, elsewhere: Path) -> None:
    names = [f"{folder}/{number}.{suffix}" for folder in "ab" for number in range(60) for suffix in ("jpg", "xmp")]
    fill(tmp_path / "pristine", *names, size=50_000)
    photos, to = tmp_path / "photos", elsewhere / "sorted"
    images = [name for name in names if name.endswith("jpg")]
    predictions = results(tmp_path / "p.jsonl", *(ok(photos / name, f"label {ord(name[2]) % 3}") for name in images))
    shutil.copytree(tmp_path / "pristine", photos)
    before, kills = tree(photos), 0
    sorting, undoing = (predictions, "--move", "-q", "--to", to), ("-q", "--undo", to)
    assert run(*sorting) == 0
    after = tree(to)
    assert (len(after), tree(photos)) == (len(names), {})
    for _ in range(10):
        kills += killed_within(0.5, *undoing)
        assert run(*undoing) in (0, 2)  # 2: it had just ended
        assert (tree(photos), tree(elsewhere)) == (before, {})
        kills += killed_within(0.5, *sorting)
        assert run(*sorting) == 0
        assert (tree(photos), tree(to)) == ({}, after)
    assert kills > 5
