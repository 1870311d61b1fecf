"""`--engine ray` where a node differs from the others in a version or in its hardware: one line says so."""

import shutil
from pathlib import Path

import pytest

from beitcli import __version__
from tests.cli.batches import Starter, grow, numbered
from tests.conftest import ROOT
from tests.workers.cluster import RUN, Cluster, end

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


def test_another_version_on_a_node_is_one_line(start: Starter, forty_images: Path, cluster: Cluster) -> None:
    shutil.copytree(ROOT / "beitcli", forty_images / "other" / "beitcli")
    init = forty_images / "other" / "beitcli" / "__init__.py"
    init.write_text(init.read_text().replace(f'"{__version__}"', '"0.0.7"'))
    cluster.start(2, PYTHONPATH=str(forty_images / "other"))
    process = start(forty_images, "images", "-m", "demo", *RUN, "-q", "--engine", "ray", "--address", cluster.address)
    lines = end(process)
    assert process.returncode == 1
    assert lines[0] == f"beit: error: node 127.0.0.2 has beit 0.0.7 instead of {__version__}"
    assert len(lines) == 2
    cluster.lose(2)


def test_other_hardware_is_said_once_or_refused(start: Starter, tmp_path: Path, cluster: Cluster) -> None:
    grow(tmp_path / "images", numbered(800))  # both nodes begin before one has done them all
    cluster.start(2)
    cluster.start(3, ATEN_CPU_CAPABILITY="default")
    on_cluster = ("--engine", "ray", "--address", cluster.address)
    lines = end(start(tmp_path, "images", "-m", "demo", *RUN, *on_cluster))
    assert [line for line in lines if "differ" in line] == [
        "beit: workers differ in hardware: last digits of scores may depend on the worker"
    ]
    process = start(tmp_path, "images", "-m", "demo", *RUN, "--fresh", *on_cluster, "--strict")
    lines = end(process)
    assert process.returncode == 2
    assert "and --strict allows no difference" in lines[-2]
