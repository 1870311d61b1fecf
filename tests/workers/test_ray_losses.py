"""`--engine ray` on a cluster of two nodes that loses nodes, workers, decoders, and the run itself: nothing is lost."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.batches import (
    Starter,
    batch,
    counts,
    stored_results,
    wait_for_results,
)
from tests.workers.cluster import Cluster
from tests.workers.conftest import SAME, kill, wait_until_gone

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.start(2, 3)
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def on_cluster(cluster: Cluster) -> tuple[str, ...]:
    return ("--engine", "ray", "--address", cluster.address)


@pytest.mark.parametrize("kind", ["worker", "decoder"])
def test_workers_and_decoders_that_are_killed_cost_nothing(
    start: Starter, folder: Path, local: bytes, cluster: Cluster, on_cluster: tuple[str, ...], kind: str
) -> None:
    process = start(folder, *SAME, *on_cluster, "--out", "out.csv")
    wait_for_results(process, folder / "out.csv.ledger", more_than=0)
    killed = 0
    while killed < 5 and process.poll() is None:
        time.sleep(random.uniform(0, 1.5))
        workers = [worker for node in (2, 3) for worker in cluster.workers(node)]
        if choice := [each for worker in workers for each in (worker[:1] if kind == "worker" else worker[1:])]:
            kill(random.choice(choice))
            killed += 1
    stderr = process.communicate(timeout=100)[1]
    assert (process.returncode, killed) == (3, 5), stderr
    assert (folder / "out.csv").read_bytes() == local


def test_a_node_that_is_killed_costs_nothing_and_one_that_joins_gets_work(
    start: Starter, folder: Path, local: bytes, cluster: Cluster, on_cluster: tuple[str, ...]
) -> None:
    process = start(folder, *SAME, *on_cluster, "--out", "out.csv", "-v")
    wait_for_results(process, folder / "out.csv.ledger", more_than=20)
    for each in (each for node in (2, 3) for worker in cluster.workers(node) for each in worker[1:]):
        os.kill(each, signal.SIGSTOP)
    cluster.start(5)
    before = stored_results(folder / "out.csv.ledger")
    wait_for_results(process, folder / "out.csv.ledger", more_than=before)
    cluster.kill(3)
    for worker in cluster.workers(2):
        for each in worker[1:]:
            os.kill(each, signal.SIGCONT)
    stderr = process.communicate(timeout=100)[1]
    assert process.returncode == 3, stderr
    assert (folder / "out.csv").read_bytes() == local
    assert "node 127.0.0.3 was lost" in stderr
    cluster.kill(5)
    cluster.start(3)


def test_stopped_or_killed_it_leaves_no_actor_and_goes_on(
    start: Starter, folder: Path, local: bytes, cluster: Cluster, on_cluster: tuple[str, ...]
) -> None:
    kept = 0
    for number in (signal.SIGKILL, signal.SIGINT):
        process = start(folder, *SAME, *on_cluster, "--out", "out.csv")
        wait_for_results(process, folder / "out.csv.ledger", more_than=kept + 20)  # not only failures
        below = [each for node in (2, 3) for worker in cluster.workers(node) for each in worker]
        assert below
        began = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=60)
        assert time.monotonic() - began < 6
        assert process.returncode == -number
        wait_until_gone(below, seconds=5)
        kept = stored_results(folder / "out.csv.ledger")
    again = batch(folder, *SAME, *on_cluster, "--out", "out.csv")
    assert counts(again.stderr).kept > 0
    assert (folder / "out.csv").read_bytes() == local
