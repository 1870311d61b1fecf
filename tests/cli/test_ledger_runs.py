"""`beit runs` after real runs, one of them killed; and the times of verbose messages."""

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.batches import DEMO, Starter, batch, counts, grow, numbered, stored_results, wait_for_results

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]
SAME = ("-b", 1, "-j", 0, "--dtype", "fp32", "--out", "out.csv")


@pytest.fixture
def silent_url() -> Iterator[str]:
    """A URL that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/a.png"


def test_the_settings_of_a_run_are_shown_as_they_are_typed(beit: Beit, tmp_path: Path) -> None:
    grow(tmp_path / "images", numbered(2))
    batch(tmp_path, "images", "-m", "demo", *SAME)
    [line] = [line for line in beit("runs", "out.csv", light=True).stdout.decode().splitlines() if "demo (" in line]
    assert line.endswith("--batch-size 1 --workers 0 --dtype fp32 --out out.csv")


@pytest.mark.slow
def test_a_run_a_kill_a_change_of_model_and_a_rerun_are_four_entries(
    beit: Beit, tmp_path: Path, tiny_beit: Path, silent_url: str
) -> None:
    grow(tmp_path / "images", numbered(2))
    (tmp_path / "tiny").symlink_to(tiny_beit)
    verbose = batch(tmp_path, "images", "-m", "tiny", *SAME, "-v").stderr
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
    assert re.search(rf"^{time} beit: .*tiny.* on cpu in fp32", verbose, re.M)
    assert counts(verbose).decoded == 2  # the summary is for scripts, and has no time
    grow(tmp_path / "images", numbered(16)[2:], seed=2)
    starter = Starter()
    killed = starter(tmp_path, "images", silent_url, "-m", "tiny", *SAME)
    try:
        wait_for_results(killed, tmp_path / "out.csv.ledger", more_than=2)
        busy = beit("runs", "out.csv", light=True)
    finally:
        starter.end()
    stored = stored_results(tmp_path / "out.csv.ledger")
    assert busy.returncode != 0 and f"process {killed.pid}".encode() in busy.stderr
    for _ in range(2):
        batch(tmp_path, "images", *DEMO, *SAME, "-q")
    listed = beit("runs", "out.csv", "--json", light=True)
    runs = json.loads(listed.stdout)
    names = ("images", "kept", "decoded", "failed")
    assert [(run["model"], run["exit_status"], *map(run["counts"].get, names)) for run in runs] == [
        ("tiny", 0, 2, 0, 2, 0),
        ("tiny", None, None, None, stored - 2, 0),
        ("demo", 0, 16, 0, 16, 0),
        ("demo", 0, 16, 16, 0, 0),
    ]
    assert [run["ended"] is None for run in runs] == [False, True, False, False]
    table = beit("runs", "out.csv", light=True).stdout.decode().splitlines()
    assert len([line for line in table if "killed" in line and f"tiny ({runs[1]['digest']})" in line]) == 1
    assert len([line for line in table if "--batch-size 1 --workers 0 --dtype fp32" in line]) == 4
    assert beit("runs", "out.csv", "--export", "so-far.csv", light=True).stderr == b"16 images so far, 0 failed\n"
    assert (tmp_path / "so-far.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
