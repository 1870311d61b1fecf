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


class Run:
    """`beit sort` as a process, and the moment of its first step."""

    def __init__(self, *arguments: object) -> None:
        journal = Path(str(arguments[-1])) / "beit-sort.jsonl"
        before = journal.stat().st_size if journal.exists() else 0
        command = [sys.executable, "-m", "beitcli", "sort", *map(str, arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while self._process.poll() is None and (not journal.exists() or journal.stat().st_size <= before):
            time.sleep(0.001)
        self._start = time.monotonic()

    def seconds(self) -> float:
        """The time that it takes from its first step to its end."""
        self._process.communicate()
        assert self._process.returncode == 0
        return time.monotonic() - self._start

    def is_killed_after(self, seconds: float) -> bool:
        time.sleep(seconds)
        self._process.kill()
        self._process.communicate()
        return self._process.returncode == -signal.SIGKILL


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
    seconds = Run(*sorting).seconds()
    after = tree(to)
    assert (len(after), tree(photos)) == (len(names), {})
    for _ in range(10):
        kills += Run(*undoing).is_killed_after(random.uniform(0, seconds))
        if (to / "beit-sort.jsonl").exists():
            Run(*undoing).seconds()
        assert (tree(photos), tree(elsewhere)) == (before, {})
        kills += Run(*sorting).is_killed_after(random.uniform(0, seconds))
        Run(*sorting).seconds()
        assert (tree(photos), tree(to)) == ({}, after)
    assert kills >= 10
