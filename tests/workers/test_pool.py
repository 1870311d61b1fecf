"""The pool: one record per source in order, also where an image takes its worker with it."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from beitcli.jobs.discovery import Lookahead
from beitcli.records import Failure, Found, Prediction, Source
from beitcli.timings import Timings
from beitcli.workers.pool import Pool
from beitcli.workers.processes import Processes
from beitcli.workers.run import PooledRun, StoredResults
from tests.conftest import ROOT
from tests.workers.plans import deadly_plan


def records_of(found: Sequence[Found], chunk: int) -> list[Prediction | Failure]:
    """The records of two workers."""
    run = PooledRun(
        plan=deadly_plan(),
        record=Prediction,
        timings=Timings(),
        decide=lambda chosen: chosen,
        known=StoredResults(),
        digest=None,
        on_workers=lambda _: None,
    )
    with closing(Pool(Processes(["cpu", "cpu"]), run, chunk).records(Lookahead(iter(found)))) as batches:
        return [record for batch in batches for record in batch]


@pytest.mark.slow
def test_an_image_that_ends_its_worker_is_the_only_one_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the workers import the plan
    found: list[Found] = []
    for number in range(20):
        Image.new("RGB", (8, 8), (255, 255, 255) if number == 7 else (number, 0, 0)).save(tmp_path / f"{number}.png")
        found.append(Source(str(tmp_path / f"{number}.png")))
    found.insert(3, Failure(Source("closed"), "permission", "cannot be read"))
    records = records_of(found, chunk=4)
    assert [record.source for record in records] == [
        each.source if isinstance(each, Failure) else each for each in found
    ]
    failed = {os.path.basename(record.source.location): record for record in records if isinstance(record, Failure)}
    assert set(failed) == {"closed", "7.png"}
    assert failed["7.png"].code == "worker_lost"
    assert failed["7.png"].message == "its worker was lost twice (SIGKILL)"
