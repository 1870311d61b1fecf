"""One run at a time: the second reports the holder, or waits; a lock ends with its process."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beitcli.errors import BusyError, OutputError
from beitcli.outputs.lock import exclusive

HOLD = """
import sys, time
from beitcli.outputs.lock import exclusive
with exclusive(sys.argv[1], False):
    print(flush=True)
    time.sleep({})
"""


def holder(path: Path, seconds: float) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", HOLD.format(seconds), str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_second_run_reports_the_holder_and_its_start_time(tmp_path: Path) -> None:
    with holder(tmp_path / "out.csv", 60) as process:
        with pytest.raises(OutputError) as caught, exclusive(str(tmp_path / "out.csv"), wait=False):
            pass
        assert re.search(rf"process {process.pid} on \S+ since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d", str(caught.value))
        with exclusive(str(tmp_path / "other.csv"), wait=False):
            pass
        process.kill()
    with exclusive(str(tmp_path / "out.csv"), wait=False):
        pass
    assert os.listdir(tmp_path) == []


def test_waiting_ends_when_the_first_does(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with holder(path, 1) as process, exclusive(str(path), wait=True):
        assert process.wait(5) == 0
        refused = subprocess.run([sys.executable, "-c", HOLD.format(0), str(path)], capture_output=True)
        assert b"another run is writing" in refused.stderr


def test_the_lock_belongs_to_one_process_and_not_to_its_children(tmp_path: Path) -> None:
    forking = "import os; child = os.fork(); child and print(child, flush=True)"
    code = HOLD.format(60).replace("print(flush=True)", forking)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out.csv")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    with exclusive(str(tmp_path / "out.csv"), wait=False):
        os.kill(child, signal.SIGKILL)


def test_a_link_and_its_target_are_one_output(tmp_path: Path) -> None:
    (tmp_path / "target.csv").touch()
    (tmp_path / "link.csv").symlink_to("target.csv")
    with holder(tmp_path / "target.csv", 60) as process:
        with pytest.raises(OutputError, match="another run"), exclusive(str(tmp_path / "link.csv"), wait=False):
            pass
        process.kill()


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "out.csv")
    held: list[int] = []
    done: list[int] = []

    def run() -> None:
        with exclusive(path, wait=True):
            held.append(1)
            done.append(len(held))
            time.sleep(0.05)
            held.pop()

    with exclusive(path, wait=False), pytest.raises(BusyError, match=f"process {os.getpid()} "):
        exclusive(path, wait=False).__enter__()
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(run) for _ in range(4)]:
            future.result()
    assert done == [1] * 4
