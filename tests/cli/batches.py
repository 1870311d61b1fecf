"""Helpers for tests of resumable runs: images of noise, `beit batch` as a process, and the contents of its ledger."""

import ctypes
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests import preloaded

DEMO = ("-m", "demo", "--dtype", "fp32")
HEAVY = ("torch", "transformers", "PIL", "numpy")


class Counts(NamedTuple):
    """The first line of a summary."""

    images: int
    kept: int
    decoded: int
    reused: int
    failed: int


def grow(folder: Path, names: Sequence[str], seed: int = 1) -> None:
    """Create small images of noise, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / name)


def numbered(count: int) -> list[str]:
    return [f"{number:03}.png" for number in range(count)]


def command(*arguments: object, python: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "beitcli", "batch", *map(str, arguments)]


def clean_environment() -> dict[str, str]:
    """Environment for fixtures that outlive a test and the private environment of `conftest`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BEIT_", "HF_", "TRANSFORMERS_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


def batch(folder: Path, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `beit batch` in a folder to its end."""
    process = preloaded.beit(["batch", *map(str, arguments)], folder, **options)
    decoded = [stream.decode() for stream in (process.stdout, process.stderr)]
    assert "Traceback" not in decoded[1]
    return subprocess.CompletedProcess(process.args, process.returncode, *decoded)


def light(folder: Path, *arguments: object, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run `beit batch` to its end, which is to import nothing heavy."""
    return batch(folder, *arguments, light=True, refused=HEAVY, **options)


class Starter:
    """Starts `beit batch` in a folder, each in a process group of its own, and ends all of them."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def __call__(self, folder: Path, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
        settings = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(command(*arguments), cwd=folder, start_new_session=True, text=True, **settings)
        self._started.append(process)
        return process

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stderr):
                if stream:
                    stream.close()


def bound_by_modes() -> None:
    """For `preexec_fn`: from here on file modes bind root too, also after `exec`."""
    drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2  # prctl(2), capabilities(7)
    if not os.geteuid():
        for capability in (dac_override, dac_read_search):
            ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def skip_unless_modes_bind(folder: Path) -> None:
    closed = folder / "closed"
    closed.touch(0)
    if not subprocess.run(["cat", closed], preexec_fn=bound_by_modes, capture_output=True).returncode:
        pytest.skip("file modes do not bind root here")
    closed.unlink()


def counts(stderr: str) -> Counts:
    """The summary's first line, whose numbers add up."""
    pattern = r"^(\d+) images: (\d+) kept, (\d+) decoded, (\d+) reused, (\d+) failed$"
    match = re.search(pattern, stderr, re.MULTILINE)
    assert match, stderr
    found = Counts(*map(int, match.groups()))
    assert found.images == sum(found[1:])
    return found


def states(stdout: str) -> dict[str, int]:
    """Counts printed by `--dry-run`, by state."""
    return {state: int(count) for count, _, state in (line.partition(" ") for line in stdout.splitlines())}


def stored_results(ledger: Path) -> int:
    """Number of results in the ledger on disk; reads a copy."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            if os.path.exists(f"{ledger}{suffix}"):
                shutil.copy(f"{ledger}{suffix}", f"{folder}/copy{suffix}")
        with closing(sqlite3.connect(f"{folder}/copy")) as database:
            return int(database.execute("SELECT count(*) FROM pictures WHERE answered > 0").fetchone()[0])


def wait_for_results(process: "subprocess.Popen[Any]", ledger: Path, more_than: int) -> None:
    """Wait until the ledger has more results than that, while the process runs."""
    until = time.monotonic() + 60
    while True:
        try:
            if stored_results(ledger) > more_than:
                return
        except sqlite3.Error:  # not created yet, or copied during a write
            pass
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.02)
