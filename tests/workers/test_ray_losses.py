"""`--engine ray` on a cluster whose nodes leave and join, and a run that is stopped or killed: nothing is lost."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.cli.batches import Starter, batch, counts, stored_results, wait_for_results
from tests.workers.cluster import Cluster
from tests.workers.conftest import SAME, wait_until_gone

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


def test_nodes_that_are_killed_cost_nothing_and_one_that_joins_gets_work(
    start: Starter, folder: Path, local: bytes, two_nodes: Cluster, on_cluster: tuple[str, ...]
) -> None:
    process = start(folder, *SAME, *on_cluster, "--out", "out.csv", "-v")
    wait_for_results(process, folder / "out.csv.ledger", more_than=20)
    signal_decoders(signal.SIGSTOP, two_nodes, 2, 3)
    two_nodes.start(5)
    before = stored_results(folder / "out.csv.ledger")
    wait_for_results(process, folder / "out.csv.ledger", more_than=before)
    signal_decoders(signal.SIGSTOP, two_nodes, 5)
    two_nodes.kill(3)
    signal_decoders(signal.SIGCONT, two_nodes, 2)
    time.sleep(random.uniform(0, 1))
    two_nodes.kill(5)
    stderr = process.communicate(timeout=100)[1]
    assert process.returncode == 3, stderr
    assert (folder / "out.csv").read_bytes() == local
    assert "node 127.0.0.3 was lost" in stderr
    assert "node 127.0.0.5 was lost" in stderr
    two_nodes.start(3)


def test_stopped_or_killed_it_leaves_no_actor_and_goes_on(
    start: Starter, folder: Path, local: bytes, two_nodes: Cluster, on_cluster: tuple[str, ...]
) -> None:
    kept = 0
    for number in (signal.SIGKILL, signal.SIGINT):
        process = start(folder, *SAME, *on_cluster, "--out", "out.csv")
        wait_for_results(process, folder / "out.csv.ledger", more_than=kept + 20)  # not only failures
        below = [each for node in (2, 3) for worker in two_nodes.workers(node) for each in worker]
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


def signal_decoders(number: signal.Signals, cluster: Cluster, *nodes: int) -> None:
    """Send a signal to the decoders of these nodes."""
    for process in [each for node in nodes for worker in cluster.workers(node) for each in worker[1:]]:
        os.kill(process, number)
