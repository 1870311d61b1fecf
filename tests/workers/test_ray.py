"""`--engine ray` on a cluster of two nodes: the bytes of a local run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.batches import grow, numbered
from tests.preloaded import beit
from tests.workers.cluster import Cluster

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def on_cluster() -> Iterator[tuple[str, ...]]:
    cluster = Cluster()
    cluster.start(2, 3)
    yield ("--engine", "ray", "--address", cluster.address)
    cluster.end()


def test_every_output_is_that_of_one_device(folder: Path, on_cluster: tuple[str, ...], tiny_beit: Path) -> None:
    grow(folder / "val" / "ant", numbered(20))
    grow(folder / "val" / "bee", numbered(20), seed=2)
    for arguments in (
        ["batch", "images", "--out", "out.csv"],
        ["batch", "images", "--out", "out.jsonl"],
        ["batch", "images", "--out", "out.parquet"],
        ["embed", "images", "--out", "out.npy"],
        ["eval", "val", "--json", "out.json"],
    ):
        written = []
        for workers in ((), on_cluster):
            process = beit([*arguments, "-m", str(tiny_beit), "-b", "4", *workers], folder)
            assert process.returncode == (0 if "val" in arguments else 3), process.stderr
            written.append({path.name: path.read_bytes() for path in folder.glob("out*") if "ledger" not in path.name})
            for path in folder.glob("out*"):
                path.unlink()
        assert written[0] == written[1]
