"""`--engine ray` on a cluster that has nothing to compute on, and without a cluster."""

import time
from pathlib import Path

import pytest

from tests.cli.batches import Starter, batch
from tests.workers.cluster import RUN, Cluster, end

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


def test_a_cluster_without_the_resources_is_one_line(start: Starter, forty_images: Path, cluster: Cluster) -> None:
    began = time.monotonic()
    process = start(forty_images, "images", "-m", "demo", *RUN, "-q", "--engine", "ray", "--address", cluster.address)
    lines = end(process)
    assert process.returncode == 1
    assert lines == ["beit: error: no worker was ready for 30 s: the cluster (0 CPUs, 0 GPUs) has no node with a core"]
    assert time.monotonic() - began < 60


def test_without_an_address_this_machine_is_the_cluster(start: Starter, forty_images: Path) -> None:
    lines = end(start(forty_images, "images", "-m", "demo", *RUN, "--engine", "ray"))
    assert lines[1] == "40 images: 0 kept, 40 decoded, 0 reused, 0 failed"
    assert batch(forty_images, "images", "-m", "demo", "--dtype", "fp32", "--out", "local.csv").returncode == 0
    assert (forty_images / "out.csv").read_bytes() == (forty_images / "local.csv").read_bytes()
