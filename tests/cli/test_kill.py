"""Runs that are killed, stopped, lose their workers or start twice: nothing is lost, and nothing done twice."""

import fcntl
import os
import random
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.batches import (
    DEMO,
    Starter,
    batch,
    clean_environment,
    counts,
    grow,
    light,
    numbered,
    stored_results,
    wait_for_results,
)
from tests.inputs.test_loader import is_running

TOTAL = 360
BATCH = 4
SAME = ("images", *DEMO, "-b", BATCH, "-j", 2, "--out", "out.csv")
FILES = ["images", "out.csv", "out.csv.ledger"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "images"
    grow(folder, numbered(TOTAL))
    return folder


@pytest.fixture(scope="module")
def undisturbed(images: Path) -> bytes:
    """Output of an undisturbed run."""
    process = batch(images.parent, *SAME, env=clean_environment())
    assert counts(process.stderr) == (TOTAL, 0, TOTAL, 0, 0)
    return (images.parent / "out.csv").read_bytes()


@pytest.fixture
def folder(images: Path, tmp_path: Path) -> Path:
    (tmp_path / "images").symlink_to(images)
    return tmp_path


@pytest.fixture
def start() -> Iterator[Starter]:
    starter = Starter()
    yield starter
    starter.end()


def end(process: "subprocess.Popen[str]") -> str:
    """stderr of the process up to its end, without a traceback."""
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    return stderr


def children(process: "subprocess.Popen[str]") -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listing.stdout.split()]


def done(ledger: Path) -> int:
    return stored_results(ledger) if ledger.exists() else 0


@pytest.mark.slow
def test_killed_at_any_instant_a_run_goes_on_where_it_was(start: Starter, folder: Path, undisturbed: bytes) -> None:
    ledger, history = folder / "out.csv.ledger", [0]
    for attempt in range(4):
        process = start(folder, *SAME)
        if attempt == 1:  # also while it starts
            time.sleep(random.uniform(0, 1))
        else:
            wait_for_results(process, ledger, more_than=history[-1])
            time.sleep(random.uniform(0, 0.05))
        process.kill()
        assert end(process).count("\n") <= 2
        assert process.returncode == -signal.SIGKILL
        history.append(done(ledger))
        assert not (folder / "out.csv").exists()
    assert history == sorted(history)
    assert [count % BATCH for count in history] == [0] * len(history)
    assert len(set(history)) >= 4
    assert counts(batch(folder, *SAME).stderr) == (TOTAL, history[-1], TOTAL - history[-1], 0, 0)
    assert (folder / "out.csv").read_bytes() == undisturbed
    assert sorted(os.listdir(folder)) == FILES


@pytest.mark.parametrize("number", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGTERM])
def test_ended_while_the_file_is_written_only_that_is_left_to_do(
    start: Starter, folder: Path, images: Path, undisturbed: bytes, number: signal.Signals
) -> None:
    shutil.copy(images.parent / "out.csv.ledger", folder)
    (folder / "out.csv").write_text("before")
    os.mkfifo(folder / "out.csv.part")  # takes a few rows, then blocks the writer
    reader = os.open(folder / "out.csv.part", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    process = start(folder, *SAME)
    assert select.select([reader], [], [], 60)[0]
    assert os.read(reader, 10) == undisturbed[:10]
    process.send_signal(number)
    stderr = end(process)
    os.close(reader)
    assert process.returncode == -number
    assert ("beit: stopped" in stderr) is (number == signal.SIGTERM)
    assert (folder / "out.csv").read_text() == "before"
    assert (folder / "out.csv.part").exists() is (number == signal.SIGKILL)
    if number == signal.SIGKILL:
        os.unlink(folder / "out.csv.part")
        (folder / "out.csv.part").write_text("rows of a run that was killed\n" * 10_000)
    assert counts(light(folder, *SAME).stderr) == (TOTAL, TOTAL, 0, 0, 0)
    assert (folder / "out.csv").read_bytes() == undisturbed
    assert sorted(os.listdir(folder)) == sorted([*FILES, "out.csv.edited"])  # "before" is not ours


@pytest.mark.slow
def test_stopped_by_any_signal_a_run_commits_whole_batches_and_names_how_to_resume(
    start: Starter, folder: Path, undisturbed: bytes
) -> None:
    ledger, before = folder / "out.csv.ledger", 0
    for number in (signal.SIGTERM, signal.SIGINT):
        for send in (os.kill, os.killpg):
            process = start(folder, *SAME)
            wait_for_results(process, ledger, more_than=before)
            workers = children(process)
            assert workers
            send(process.pid, number)
            stderr = end(process)
            assert process.returncode == -number
            now = stored_results(ledger)
            assert now % BATCH == 0
            assert counts(stderr) == (now, before, now - before, 0, 0)
            notices = [line for line in stderr.splitlines() if line.startswith("beit: stopped")]
            assert ["the same command goes on" in line and ledger.name in line for line in notices] == [True]
            assert not any(map(is_running, workers))
            assert sorted(os.listdir(folder)) == ["images", "out.csv.ledger"]
            before = now
    assert before < TOTAL
    assert counts(batch(folder, *SAME).stderr) == (TOTAL, before, TOTAL - before, 0, 0)
    assert (folder / "out.csv").read_bytes() == undisturbed
    assert sorted(os.listdir(folder)) == FILES


@pytest.mark.slow
def test_workers_that_are_killed_cost_nothing(start: Starter, folder: Path, undisturbed: bytes) -> None:
    process, ledger = start(folder, *SAME), folder / "out.csv.ledger"
    for death in (signal.SIGSEGV, signal.SIGKILL):
        wait_for_results(process, ledger, more_than=done(ledger) + 20)
        workers = children(process)
        assert workers
        with suppress(ProcessLookupError):  # it may have ended already
            os.kill(workers[-1], death)
    assert counts(end(process)) == (TOTAL, 0, TOTAL, 0, 0)
    assert process.returncode == 0
    assert (folder / "out.csv").read_bytes() == undisturbed


# Two runs on one output; the first reads a list that ends when the test closes it

LISTED = ("--files-from", "-", *DEMO, "--out", "out.csv")


def listening(start: Starter, folder: Path) -> "subprocess.Popen[str]":
    return start(folder, *LISTED, stdin=subprocess.PIPE)


def wait_for_the_lock(folder: Path, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 30
    while f"process {process.pid} " not in ((folder / "out.csv.lock").read_text() if is_locked(folder) else ""):
        assert time.monotonic() < until
        time.sleep(0.02)


def is_locked(folder: Path) -> bool:
    return (folder / "out.csv.lock").exists()


def test_of_two_runs_that_start_together_one_works(start: Starter, folder: Path) -> None:
    both = [listening(start, folder), listening(start, folder)]
    until = time.monotonic() + 30
    while all(process.poll() is None for process in both):
        assert time.monotonic() < until
        time.sleep(0.02)
    loser, winner = sorted(both, key=lambda process: process.poll() is None)
    error = end(loser).splitlines()[0]
    assert loser.returncode == 4
    assert error.startswith("beit: error: another run is writing `out.csv`: ")
    assert f"process {winner.pid} on " in error or "it has just begun" in error
    wait_for_the_lock(folder, winner)
    third = light(folder, *SAME)
    assert third.returncode == 4
    assert re.search(rf"process {winner.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", third.stderr)
    assert "--wait" in third.stderr
    winner.communicate("", timeout=30)
    assert winner.returncode == 0
    assert not is_locked(folder)


def test_with_wait_a_run_waits_for_another_and_can_be_stopped_meanwhile(start: Starter, folder: Path) -> None:
    first = listening(start, folder)
    wait_for_the_lock(folder, first)
    patient, stopped = (start(folder, *LISTED, "--wait") for _ in range(2))
    quiet = start(folder, *LISTED, "--wait", "-q")
    for process in (patient, stopped):
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("beit: waiting ")
        assert f"process {first.pid} on " in line
    stopped.terminate()
    assert "images" not in end(stopped)
    assert stopped.returncode == -signal.SIGTERM
    assert quiet.poll() is patient.poll() is None
    first.communicate("", timeout=30)
    assert end(quiet) == ""
    assert counts(end(patient)) == (0, 0, 0, 0, 0)
    assert (first.returncode, quiet.returncode, patient.returncode) == (0, 0, 0)
    assert sorted(os.listdir(folder)) == FILES


def test_a_run_that_is_killed_locks_nobody_out(start: Starter, folder: Path) -> None:
    first = listening(start, folder)
    wait_for_the_lock(folder, first)
    first.kill()
    end(first)
    assert is_locked(folder)
    assert light(folder, *LISTED).returncode == 0
    assert not is_locked(folder)
