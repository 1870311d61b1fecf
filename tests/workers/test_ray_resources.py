"""`--engine ray` on a cluster that has nothing to compute on, and without a cluster."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.batches import Starter, batch, grow, numbered
from tests.workers.cluster import RUN, Cluster, end

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    grow(tmp_path / "images", numbered(40))
    return tmp_path


def test_a_cluster_without_the_resources_is_one_line(start: Starter, folder: Path, cluster: Cluster) -> None:
    began = time.monotonic()
    process = start(folder, "images", "-m", "demo", *RUN, "-q", "--engine", "ray", "--address", cluster.address)
    lines = end(process)
    assert process.returncode == 1
    assert lines == ["beit: error: no worker was ready for 30 s: the cluster (0 CPUs, 0 GPUs) has no node with a core"]
    assert time.monotonic() - began < 60


def test_without_an_address_this_machine_is_the_cluster(start: Starter, folder: Path) -> None:
    lines = end(start(folder, "images", "-m", "demo", *RUN, "--engine", "ray"))
    assert lines[1] == "40 images: 0 kept, 40 decoded, 0 reused, 0 failed"
    assert batch(folder, "images", "-m", "demo", "--dtype", "fp32", "--out", "local.csv").returncode == 0
    assert (folder / "out.csv").read_bytes() == (folder / "local.csv").read_bytes()
