"""Stopping by a signal or a closed pipe: rows are whole, and no process is left."""

import csv
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from beitcli.model.catalog import KNOWN
from tests.cli.batches import wait_for_results
from tests.conftest import SAMPLES
from tests.inputs.test_loader import is_running

DEMO = ("-m", "demo", "--dtype", "fp32", "-b", "4")


def start(*arguments: object, **options: object) -> "subprocess.Popen[Any]":
    command = [sys.executable, "-m", "beitcli", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, **options)  # type: ignore[call-overload]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A list of more images than any run here completes."""
    path = tmp_path / "list"
    path.write_text(f"{SAMPLES / 'cat.jpg'}\n" * 200_000)
    return path


def in_pipe(descriptor: int) -> int:
    """Bytes that wait in the pipe."""
    [count] = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(count)


def wait_for_rows(path: Path, count: int) -> None:
    until = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < until
        time.sleep(0.05)


def descendants(process: "subprocess.Popen[bytes]") -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listing.stdout.split()]


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        (signal.SIGINT, True),
        (signal.SIGTERM, False),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, True), (signal.SIGHUP, False))
        ),
    ],
)
def test_a_signal_ends_a_stream_with_whole_rows(
    many: Path, tmp_path: Path, number: signal.Signals, whole_group: bool
) -> None:
    with open(tmp_path / "out.csv", "wb") as out:
        process = start("batch", "--files-from", many, *DEMO, stdout=out)
    wait_for_rows(tmp_path / "out.csv", 20)
    workers = descendants(process)
    assert workers
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == -number
    assert b"Traceback" not in stderr
    assert b" images: 0 kept, " in stderr
    assert not any(map(is_running, workers))
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    assert {len(row) for row in rows} == {19}
    assert (tmp_path / "out.csv").read_bytes().endswith(b"\n")


@pytest.mark.slow
def test_a_terminal_that_hangs_up_stops_a_run_and_its_workers(many: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "out.csv.ledger"
    ours, theirs = os.openpty()
    arguments = ("batch", "--files-from", many, *DEMO, "--out", tmp_path / "out.csv")
    process = subprocess.Popen(
        [sys.executable, "-m", "beitcli", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    wait_for_results(process, ledger, more_than=0)
    workers = descendants(process)
    os.close(ours)
    assert process.wait(timeout=20) == -signal.SIGHUP
    assert not any(map(is_running, workers))
    assert not (tmp_path / "out.csv.lock").exists()


@pytest.mark.slow
def test_signals_that_warn_and_a_hang_up_under_nohup_end_no_run(tmp_path: Path) -> None:
    with open(tmp_path / "out.csv", "wb") as out:
        process = start(
            *("batch", "--files-from", "-", *DEMO),
            stdin=subprocess.PIPE,
            stdout=out,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup does
        )
    assert process.stdin is not None
    process.stdin.write(f"{SAMPLES / 'cat.jpg'}\n".encode() * 60)
    process.stdin.flush()
    wait_for_rows(tmp_path / "out.csv", 5)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"\n60 images: " in stderr
    assert (tmp_path / "out.csv").read_bytes().count(b",ok,") == 60


def test_a_signal_keeps_the_part_and_names_it(many: Path, tmp_path: Path) -> None:
    process = start("batch", "--files-from", many, *DEMO, "--out", tmp_path / "out.csv", "--no-ledger")
    part = tmp_path / "out.csv.part"
    wait_for_rows(part, 20)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert f"beit: what was written until now is in `{part}`" in stderr.decode().splitlines()
    assert part.exists()
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "number",
    [pytest.param(None, marks=pytest.mark.slow), pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM],
)
def test_no_temporary_file_is_left(many: Path, tmp_path: Path, number: signal.Signals | None) -> None:
    inputs = (SAMPLES,) if number is None else ("--files-from", many)
    with TemporaryDirectory() as folder, open(tmp_path / "out.csv", "wb") as out:  # of a short name
        process = start("batch", *inputs, *DEMO, stdout=out, env={**os.environ, "TMPDIR": folder})
        wait_for_rows(tmp_path / "out.csv", 2)
        if number:
            assert os.listdir(folder)
            process.send_signal(number)
        process.communicate(timeout=20)
        assert not os.listdir(folder)


@pytest.mark.slow
def test_a_temporary_folder_may_have_a_long_name(tmp_path: Path) -> None:
    folder = tmp_path / ("n" * 80)
    folder.mkdir()
    process = start("classify", SAMPLES, *DEMO, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(folder)})
    stdout, _ = process.communicate(timeout=60)
    assert (process.returncode, stdout.count(b",ok,")) == (0, 3)


def test_a_signal_before_the_first_prediction(many: Path) -> None:
    process = start("batch", "--files-from", many, *DEMO, stdout=subprocess.DEVNULL)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert b"Traceback" not in stderr


SWALLOWING = """
import os, signal, sys
from beitcli.__main__ import run

class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                raise ImportError("cannot load module more than once per process")

sys.meta_path.insert(0, Finder())
run()
"""


def test_a_signal_that_an_import_swallows(many: Path) -> None:
    command = [sys.executable, "-c", SWALLOWING, "batch", "--files-from", str(many), *DEMO]
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.returncode == -signal.SIGINT
    assert b"Traceback" not in process.stderr


def test_kill_leaves_no_process(many: Path, tmp_path: Path) -> None:
    with open(tmp_path / "out.csv", "wb") as out:
        process = start("batch", "--files-from", many, *DEMO, stdout=out)
    wait_for_rows(tmp_path / "out.csv", 20)
    workers = descendants(process)
    process.kill()
    process.communicate()
    time.sleep(1)
    assert not any(map(is_running, workers))


@pytest.mark.parametrize(
    ("arguments", "separator", "lines", "filled"),
    [
        (("models",), b"\t", 1 + len(KNOWN), 4096),
        pytest.param(
            ("batch", *[SAMPLES / "cat.jpg"] * 40, *DEMO, "-j", "0", "-q"), b",", 1 + 40, 0, marks=pytest.mark.slow
        ),
    ],
    ids=["text", "records"],
)
def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_every_row(
    arguments: tuple[object, ...], separator: bytes, lines: int, filled: int
) -> None:
    theirs, ours = os.pipe()
    fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(ours, False)
    os.write(ours, b"." * filled)
    with start(*arguments, stdout=ours) as process:
        os.close(ours)
        assert process.stderr is not None
        while in_pipe(theirs) < 2000 and process.poll() is None:
            time.sleep(0.05)
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for room
            process.wait(timeout=1)
        with open(theirs, "rb") as reader:
            received = reader.read()[filled:]
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 0
    assert len({line.count(separator) for line in received.splitlines()}) == 1
    assert received.count(b"\n") == lines


@pytest.mark.parametrize("command", [pytest.param("classify", marks=pytest.mark.slow), "batch"])
def test_a_reader_that_has_seen_enough_ends_the_run_quietly(many: Path, command: str) -> None:
    with start(command, "--files-from", many, *DEMO, "-q", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"source,status")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 0
