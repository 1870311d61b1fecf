"""Runs without a command line: the observer gets everything, and nothing is printed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from beitcli.jobs.classify import classify, classify_again
from beitcli.jobs.observer import Report, Silent
from beitcli.jobs.requests import Compute, Inputs, ModelChoice, Request, Resume
from beitcli.jobs.stream import Destination
from beitcli.outputs.writers import Layout

SAMPLES = str(Path(__file__).parents[2] / "samples")


class Recorder:
    """Keeps what an observer hears."""

    def __init__(self) -> None:
        self.images = 0
        self.reports: list[Report] = []

    def progress(self, images: int) -> None:
        self.images += images

    def summary(self, report: Report) -> None:
        self.reports.append(report)


def request(**parts: object) -> Request:
    return Request(Inputs([SAMPLES]), model=ModelChoice("demo"), compute=Compute(workers=0, dtype="fp32"), **parts)  # type: ignore[arg-type]


def test_a_run_streams_without_a_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    written, observer = BytesIO(), Recorder()

    @contextmanager
    def opened() -> Iterator[BytesIO]:
        yield written

    report = classify(request(), lambda columns: Layout("jsonl", columns), Destination(opened, padded=True), observer)
    rows = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert (observer.images, observer.reports, report.tally.decoded) == (3, [report], 3)
    assert capfd.readouterr() == ("", "")


def test_a_resumed_run_computes_nothing_twice(tmp_path: Path) -> None:
    target = str(tmp_path / "out.csv")
    again = request(resume=Resume(out=target), target=target)
    first = classify_again(again, lambda columns: Layout("csv", columns), Silent())
    second = classify_again(again, lambda columns: Layout("csv", columns), Silent())
    assert (first.tally.decoded, second.tally.decoded, second.tally.kept) == (3, 0, 3)
    assert (tmp_path / "out.csv").read_text().count("\n") == 4
