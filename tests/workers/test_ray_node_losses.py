"""`--engine ray` on a cluster of two nodes, one of which is killed at any instant of a run: nothing is lost."""

import random
import time
from pathlib import Path

import pytest

from tests.cli.batches import Starter, wait_for_results
from tests.workers.cluster import Cluster
from tests.workers.conftest import SAME

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


def test_a_node_that_is_killed_at_any_instant_costs_nothing(
    start: Starter, folder: Path, local: bytes, two_nodes: Cluster, on_cluster: tuple[str, ...]
) -> None:
    lost: list[int] = []
    for number in range(3):
        output = folder / f"{number}.csv"
        process = start(folder, *SAME, *on_cluster, "--out", output.name)
        two_nodes.start(*lost)  # it joins the run
        wait_for_results(process, folder / f"{output.name}.ledger", more_than=0)
        time.sleep(random.uniform(0, 1))
        lost = [random.choice((2, 3))]
        two_nodes.kill(*lost)
        stderr = process.communicate(timeout=100)[1]
        assert process.returncode == 3, stderr
        assert output.read_bytes() == local
