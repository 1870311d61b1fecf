"""`--devices` where workers are lost or stopped, and what they take of memory and of a server."""

import itertools
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.batches import Starter, batch, counts, grow, numbered, stored_results, wait_for_results
from tests.inputs.test_fetch import Server, reply
from tests.preloaded import beit
from tests.workers.conftest import SAME, TWO, descendants, kill, wait_until_gone, workers_of


@pytest.mark.slow
def test_a_process_that_is_killed_at_any_instant_costs_nothing(start: Starter, folder: Path, local: bytes) -> None:
    """One in a run: an image that is lost twice, alone in its chunk, fails."""
    killed, outputs = 0, (folder / f"{number}.csv" for number in itertools.count())
    while killed < 5:
        output = next(outputs)
        process = start(folder, *SAME, *TWO, "--out", output.name)
        while process.poll() is None and not workers_of(process.pid):
            time.sleep(0.02)
        time.sleep(random.uniform(0, 1.5))
        found = workers_of(process.pid)
        if below := [*found, *(each for worker in found for each in descendants(worker))]:
            kill(random.choice(below))
            killed += 1
        stderr = process.communicate(timeout=60)[1]
        assert process.returncode == 3, stderr
        assert output.read_bytes() == local


@pytest.mark.slow
def test_a_stream_survives_a_worker_without_a_word(start: Starter, tmp_path: Path) -> None:
    grow(tmp_path / "images", numbered(300))
    with open(tmp_path / "one.csv", "w") as one, open(tmp_path / "two.csv", "w") as two:
        start(tmp_path, *SAME, stdout=one).wait(60)
        process = start(tmp_path, *SAME, *TWO, "-q", stdout=two)
        while not os.fstat(two.fileno()).st_size:
            time.sleep(0.02)
        kill(workers_of(process.pid)[0])
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


@pytest.mark.slow
def test_stopped_or_killed_it_leaves_no_worker_and_goes_on(start: Starter, folder: Path, local: bytes) -> None:
    kept = 0
    for number in (signal.SIGKILL, signal.SIGINT):
        process = start(folder, *SAME, *TWO, "--out", "out.csv")
        wait_for_results(process, folder / "out.csv.ledger", more_than=kept + 20)
        below = descendants(process.pid)
        began = time.monotonic()
        process.send_signal(number)
        stderr = process.communicate(timeout=60)[1]
        assert time.monotonic() - began < 6
        assert process.returncode == -number
        assert ("beit: stopped" in stderr) is (number == signal.SIGINT)
        wait_until_gone(below, seconds=5)
        kept = stored_results(folder / "out.csv.ledger")
    process_again = batch(folder, *SAME, *TWO, "--out", "out.csv")
    assert counts(process_again.stderr).kept > 0
    assert (folder / "out.csv").read_bytes() == local


@pytest.mark.slow
def test_a_long_list_takes_no_memory(start: Starter, tmp_path: Path) -> None:
    memory = []
    for count in (2_000, 100_000):
        (tmp_path / "list.txt").write_text("".join(f"missing/{number}.jpg\n" for number in range(count)))
        process = start(tmp_path, "--files-from", "list.txt", "-m", "demo", *TWO, "--out", f"{count}.csv", "-q")
        most = 0
        while process.poll() is None:
            most = max(most, resident(process.pid))
            time.sleep(0.05)
        memory.append(most)
    assert memory[1] - memory[0] < 20_000_000


def resident(process: int) -> int:
    """Bytes of memory of a process."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096
    return 0


@pytest.mark.slow
def test_a_server_sees_eight_connections_however_many_workers(tmp_path: Path) -> None:
    grow(tmp_path / "images", ["a.png"])
    body = (tmp_path / "images" / "a.png").read_bytes()
    most = 0

    def respond(request: object) -> None:
        nonlocal most
        most = max(most, server.connections)
        time.sleep(0.01)
        reply(200, body)(request)  # type: ignore[arg-type]

    with Server((respond,)) as server:
        (tmp_path / "list.txt").write_text("".join(f"{server.url}/{number}\n" for number in range(200)))
        options = ["--files-from", "list.txt", "-m", "demo", "-j", "1", "--devices", "cpu,cpu,cpu,cpu", "-q"]
        process = beit(["batch", *options, "--out", "out.csv"], tmp_path)
    assert process.returncode == 0, process.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 201
    assert 1 < most <= 8
