"""`--devices`: the bytes of a local run, whatever becomes of a worker, without Ray."""

import os
import random
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.batches import (
    Starter,
    batch,
    counts,
    grow,
    numbered,
    stored_results,
    wait_for_results,
)
from tests.inputs.test_fetch import Server, reply
from tests.preloaded import beit
from tests.workers.conftest import SAME, descendants, kill, wait_until_gone, workers_of

TWO = ("--devices", "cpu,cpu")


@pytest.mark.slow
def test_several_devices_write_the_bytes_of_one(folder: Path, local: bytes) -> None:
    process = batch(folder, *SAME, *TWO, "--out", "out.csv")
    assert process.returncode == 3
    assert (folder / "out.csv").read_bytes() == local
    assert counts(process.stderr).images == 501
    again = batch(folder, *SAME, *TWO, "--out", "out.csv", "--dry-run")
    assert again.stdout.splitlines()[-1] == "2 workers"


@pytest.mark.slow
def test_every_output_is_that_of_one_device(folder: Path, tiny_beit: Path) -> None:
    grow(folder / "val" / "ant", numbered(20))
    grow(folder / "val" / "bee", numbered(20), seed=2)
    for arguments in (
        ["batch", "images", "--out", "out.jsonl"],
        ["batch", "images", "--out", "out.parquet"],
        ["embed", "images", "--out", "out.npz"],
        ["eval", "val", "--json", "out.json"],
        ["classify", "images"],
    ):
        written = []
        for devices in ((), TWO):
            process = beit([*arguments, "-m", str(tiny_beit), "-b", "4", *devices], folder)
            assert process.returncode == (0 if "val" in arguments else 3)
            written.append({path.name: path.read_bytes() for path in folder.glob("out*") if "ledger" not in path.name})
            written[-1]["stdout"] = process.stdout
            for path in folder.glob("out*"):
                path.unlink()
        assert written[0] == written[1]


@pytest.mark.slow
def test_a_long_path_of_temporary_files_is_no_obstacle(tmp_path: Path) -> None:
    grow(tmp_path / "images", numbered(5))
    long = tmp_path / ("t" * 110)
    long.mkdir()
    process = batch(tmp_path, *SAME, *TWO, "--out", "out.csv", env={**os.environ, "TMPDIR": str(long)})
    assert counts(process.stderr) == (5, 0, 5, 0, 0)


@pytest.mark.slow
def test_an_image_that_the_ledger_knows_skips_the_model(folder: Path, local: bytes) -> None:
    images = folder / "own"
    grow(images, numbered(20))
    again = ("own", "-m", "demo", "--dtype", "fp32", *TWO, "--out", "out.csv")
    assert counts(batch(folder, *again).stderr) == (20, 0, 20, 0, 0)
    for number in range(20, 26):
        (images / f"{number:03}.png").write_bytes((images / f"{number - 20:03}.png").read_bytes())
    assert counts(batch(folder, *again).stderr) == (26, 20, 0, 6, 0)


@pytest.mark.slow
def test_a_probe_of_features_by_workers_is_the_probe(folder: Path, tiny_beit: Path) -> None:
    grow(folder / "val" / "ant", numbered(20))
    grow(folder / "val" / "bee", numbered(20), seed=2)
    weights = []
    for number, devices in enumerate([(), TWO]):
        process = beit(["train", "val", "-m", str(tiny_beit), "--out", f"model-{number}", *devices], folder)
        assert process.returncode == 0, process.stderr
        weights.append((folder / f"model-{number}" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    refused = beit(["train", "val", "--from-scratch", "tiny", "--out", "new", *TWO], folder)
    assert refused.returncode == 2
    assert b"a training of all layers runs on one device" in refused.stderr


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
def test_workers_that_are_killed_cost_nothing(start: Starter, folder: Path, local: bytes) -> None:
    process = start(folder, *SAME, *TWO, "--out", "out.csv")
    for _ in range(5):
        time.sleep(random.uniform(0, 1.5))
        found = workers_of(process.pid)
        below = [each for worker in found for each in descendants(worker)]
        if process.poll() is None and found:
            kill(random.choice(found + below))
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 3, stderr
    assert (folder / "out.csv").read_bytes() == local


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


def test_what_contradicts_itself_is_refused(folder: Path) -> None:
    for options, message in (
        (("--devices", "cpu,abacus"), "--devices cpu,abacus: no such devices"),
        (("--devices", "all", "--engine", "ray"), "--devices all and --engine ray"),
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1 is for Ray"),
        (("--strict",), "--strict is for several workers"),
    ):
        process = batch(folder, *SAME, *options, "--out", "out.csv", light=True)
        assert process.returncode == 2
        assert process.stderr.splitlines()[0] == f"beit: error: {message}"
        assert re.match("hint: ", process.stderr.splitlines()[1])


def test_a_device_that_is_not_there_ends_the_run(folder: Path) -> None:
    process = batch(folder, *SAME, "--devices", "cpu,cuda:7", "--out", "out.csv")
    assert process.returncode == 2
    assert "this machine has 0 CUDA devices" in process.stderr
