"""`--engine ray` on a cluster of two nodes: the bytes of a local run."""

import os
import time
from pathlib import Path

import pytest

from tests.cli.batches import Starter, grow, numbered
from tests.preloaded import beit
from tests.workers.cluster import Cluster
from tests.workers.conftest import SAME, kill

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow]


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


def test_a_stream_survives_an_actor_without_a_word(
    start: Starter, tmp_path: Path, two_nodes: Cluster, on_cluster: tuple[str, ...]
) -> None:
    grow(tmp_path / "images", numbered(300))
    with open(tmp_path / "one.csv", "w") as one, open(tmp_path / "two.csv", "w") as two:
        start(tmp_path, *SAME, stdout=one).wait(60)
        process = start(tmp_path, *SAME, *on_cluster, "-q", stdout=two)
        while not os.fstat(two.fileno()).st_size:
            time.sleep(0.02)
        [actor, *_], *_ = [*two_nodes.workers(2), *two_nodes.workers(3)]  # one of the nodes may not have begun
        kill(actor)
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
