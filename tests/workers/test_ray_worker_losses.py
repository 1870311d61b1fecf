"""`--engine ray` on a cluster of two nodes, where workers or their decoders are killed: nothing is lost."""

import os
import random
import time
from pathlib import Path

import pytest

from tests.cli.batches import Starter, wait_for_results
from tests.workers.cluster import Cluster
from tests.workers.conftest import SAME, kill

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


def test_workers_that_are_killed_cost_nothing(
    start: Starter, folder: Path, local: bytes, two_nodes: Cluster, on_cluster: tuple[str, ...]
) -> None:
    process = start(folder, *SAME, *on_cluster, "--out", "out.csv")
    wait_for_results(process, folder / "out.csv.ledger", more_than=0)
    killed = 0
    while killed < 5 and process.poll() is None:
        time.sleep(random.uniform(0, 1.5))
        if workers := [worker for node in (2, 3) for worker in two_nodes.workers(node)]:
            kill(random.choice(workers)[0])
            killed += 1
    stderr = process.communicate(timeout=100)[1]
    assert (process.returncode, killed) == (3, 5), stderr
    assert (folder / "out.csv").read_bytes() == local


def test_a_decoder_that_is_killed_at_any_instant_costs_nothing(
    start: Starter, folder: Path, local: bytes, two_nodes: Cluster, on_cluster: tuple[str, ...]
) -> None:
    """At most two in a run: an image whose decoders die three times fails."""
    for kills in (2, 2, 1):
        process = start(folder, *SAME, *on_cluster, "--out", "out.csv")
        wait_for_results(process, folder / "out.csv.ledger", more_than=0)
        for _ in range(kills):
            time.sleep(random.uniform(0, 1))
            kill(random.choice([each for node in (2, 3) for worker in two_nodes.workers(node) for each in worker[1:]]))
        stderr = process.communicate(timeout=100)[1]
        assert process.returncode == 3, stderr
        assert (folder / "out.csv").read_bytes() == local
        os.unlink(folder / "out.csv")
        os.unlink(folder / "out.csv.ledger")
