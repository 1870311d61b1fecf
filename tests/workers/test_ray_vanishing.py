"""`--engine ray` on a cluster that vanishes."""

from pathlib import Path

import pytest

from tests.cli.batches import Starter, batch, counts, grow, numbered, wait_for_results
from tests.workers.cluster import RUN, Cluster, end

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


def test_a_cluster_that_vanishes_ends_the_run(start: Starter, tmp_path: Path) -> None:
    """After half a minute, before Ray would end the process in its own words; the same command goes on."""
    grow(tmp_path / "images", numbered(600))
    cluster = Cluster()
    cluster.start(2)
    on_cluster = ("--engine", "ray", "--address", cluster.address)
    process = start(tmp_path, "images", "-m", "demo", *RUN, "-q", "-b", 4, *on_cluster)
    wait_for_results(process, tmp_path / "out.csv.ledger", more_than=20)
    cluster.end()
    lines = end(process)
    assert process.returncode == 1
    assert lines == [
        f"beit: error: the head of the Ray cluster at --address {cluster.address} has gone",
        "hint: once it is back the same command goes on",
    ]
    again = counts(batch(tmp_path, "images", "-m", "demo", *RUN, "-b", 32).stderr)
    assert again.kept > 20
    assert again.kept + again.decoded == 600
