"""`--engine ray` on a cluster of two nodes, where workers or their decoders are killed: nothing is lost."""

import itertools
import random
import time
from pathlib import Path

import pytest

from tests.cli.batches import Starter, wait_for_results
from tests.workers.cluster import Cluster
from tests.workers.conftest import SAME, kill

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


@pytest.mark.parametrize("of_worker", [pytest.param(slice(1), id="actor"), pytest.param(slice(1, None), id="decoder")])
def test_a_process_that_is_killed_at_any_instant_costs_nothing(
    of_worker: slice, start: Starter, folder: Path, local: bytes, two_nodes: Cluster, on_cluster: tuple[str, ...]
) -> None:
    """At most two a run: an image fails that is lost twice, alone in its chunk, or whose decoders die three times."""
    killed, outputs = 0, (folder / f"{number}.csv" for number in itertools.count())
    while killed < 5:
        output = next(outputs)
        process = start(folder, *SAME, *on_cluster, "--out", output.name)
        wait_for_results(process, folder / f"{output.name}.ledger", more_than=0)
        for _ in range(2):
            time.sleep(random.uniform(0, 1))
            if found := [each for node in (2, 3) for worker in two_nodes.workers(node) for each in worker[of_worker]]:
                kill(random.choice(found))
                killed += 1
        stderr = process.communicate(timeout=100)[1]
        assert process.returncode == 3, stderr
        assert output.read_bytes() == local
