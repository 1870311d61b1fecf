"""`--engine ray` where a node, or the cluster, is not as it should be: one line says so."""

import os
import time
from pathlib import Path

import pytest

from tests.cli.batches import Starter, batch
from tests.workers.cluster import RUN, Cluster, end, free_port

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


def test_nothing_at_the_address_is_one_line(forty_images: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    began = time.monotonic()
    process = batch(forty_images, "images", "-m", "demo", *RUN, "-q", "--engine", "ray", "--address", address)
    assert process.returncode == 1
    assert process.stderr == f"beit: error: no Ray cluster at --address {address}: Connection refused\n"
    assert time.monotonic() - began < 10


def test_what_a_node_does_not_see_is_sent_or_said(
    start: Starter, forty_images: Path, cluster: Cluster, tiny_beit: Path
) -> None:
    """A descriptor's folder stands for one of another machine: only the run's own process has it."""
    cluster.start(2, XDG_CACHE_HOME=str(forty_images / "cache"))
    on_cluster = ("--engine", "ray", "--address", cluster.address)
    descriptor = os.open(tiny_beit, os.O_RDONLY)
    model, options = f"/proc/self/fd/{descriptor}", {"pass_fds": [descriptor]}
    lines = end(start(forty_images, "images", "-m", model, *RUN, *on_cluster, **options))
    assert lines[0] == "40 images: 0 kept, 40 decoded, 0 reused, 0 failed"
    [sent] = (forty_images / "cache" / "beit" / "models").iterdir()
    assert (sent / "model.safetensors").read_bytes() == (tiny_beit / "model.safetensors").read_bytes()
    assert batch(forty_images, "images", "-m", tiny_beit, "--dtype", "fp32", "--out", "local.csv").returncode == 0
    assert (forty_images / "out.csv").read_bytes() == (forty_images / "local.csv").read_bytes()
    os.close(descriptor)
    descriptor = os.open(forty_images / "images", os.O_RDONLY)
    images, options = f"/proc/self/fd/{descriptor}", {"pass_fds": [descriptor]}
    process = start(
        forty_images, images, "-m", tiny_beit, "--dtype", "fp32", "-q", "-o", "b.csv", *on_cluster, **options
    )
    lines = end(process)
    os.close(descriptor)
    assert process.returncode == 1
    assert lines[0] == f"beit: error: `{images}/000.png` is not on node 127.0.0.2"
    cluster.lose(2)


def test_a_worker_for_each_gpu_or_without_any_for_each_node() -> None:
    from beitcli.workers.ray_actors import _places

    def node(name: str, alive: bool = True, **resources: float) -> dict[str, object]:
        return {"Alive": alive, "NodeID": name, "NodeManagerAddress": name, "Resources": resources}

    gpus, cpus, head = node("a", CPU=32.0, GPU=4.0), node("b", CPU=16.0), node("c", CPU=0.0)
    gone = node("d", alive=False, CPU=8.0, GPU=8.0)
    places = list(_places([gpus, cpus, head, gone], "auto"))
    assert [(place.node, place.device, place.cores, place.number) for place in places] == [
        ("a", "cuda", 8, number) for number in range(4)
    ]
    assert len(set(places)) == 4
    assert [(place.node, place.cores) for place in _places([gpus, cpus, head], "cpu")] == [("a", 32), ("b", 16)]
    assert [(place.node, place.cores) for place in _places([cpus, head, gone], "auto")] == [("b", 16)]
    assert list(_places([cpus, head], "cuda")) == []
