"""Runs without a command line: the observer gets everything, and nothing is printed."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from beitcli.errors import BusyError
from beitcli.inputs.sources import shard as shard_of
from beitcli.jobs.classify import classify, classify_again, classify_into_file
from beitcli.jobs.discovery import begin_stage, find
from beitcli.jobs.observer import Report, Silent
from beitcli.jobs.requests import Compute, Inputs, ModelChoice, Request, Resume
from beitcli.jobs.stream import Destination
from beitcli.jobs.train import train
from beitcli.jobs.training_requests import Recipe, TrainingImages, TrainingRequest
from beitcli.model.catalog import DEMO_FOLDER
from beitcli.outputs.lock import exclusive
from beitcli.outputs.writers import Layout
from beitcli.records import Skipped
from beitcli.training.loop import TrainingProgress
from tests.training.shapes import draw_classes

SAMPLES = str(Path(__file__).parents[2] / "samples")


class Recorder(Silent):
    """Keeps what an observer hears: of each stage its name, total, and the units kept and finished."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None, int, int]] = []
        self.counts: list[int] = []
        self.steps: list[int] = []
        self.reports: list[Report] = []

    def stage(self, name: str, total: int | None = None, unit: str = "images") -> None:
        self.stages.append((name, total, 0, 0))

    def countable(self, counts: Callable[[], Iterable[int]]) -> None:
        self.counts.append(sum(counts()))

    def progress(self, count: int) -> None:
        name, total, kept, finished = self.stages[-1]
        self.stages[-1] = (name, total, kept, finished + count)

    def kept(self, count: int) -> None:
        name, total, kept, finished = self.stages[-1]
        self.stages[-1] = (name, total, kept + count, finished)

    def step(self, now: TrainingProgress) -> None:
        self.steps.append(now.step)

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
    assert (observer.stages, observer.counts) == ([("classifying", None, 0, 3)], [3])
    assert (observer.reports, report.tally.decoded) == ([report], 3)
    assert capfd.readouterr() == ("", "")


def test_a_resumed_run_computes_nothing_twice(tmp_path: Path) -> None:
    target = str(tmp_path / "out.csv")
    again = request(resume=Resume(out=target), target=target)
    observers = Recorder(), Recorder()
    first, second = (classify_again(again, lambda columns: Layout("csv", columns), each) for each in observers)
    assert (first.tally.decoded, second.tally.decoded, second.tally.kept) == (3, 0, 3)
    assert (tmp_path / "out.csv").read_text().count("\n") == 4
    assert observers[0].stages == [("classifying", None, 0, 3), ("writing", 3, 0, 3)]
    assert observers[1].stages == [("classifying", None, 3, 0)]


def test_a_processor_that_changes_makes_results_stale_in_either_layout(tmp_path: Path) -> None:
    model, target = shutil.copytree(DEMO_FOLDER, tmp_path / "model"), str(tmp_path / "out.csv")
    processor = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").unlink()
    again = replace(request(resume=Resume(out=target), target=target), model=ModelChoice(str(model)))
    for resample, decoded in ((2, 3), (2, 0), (3, 3)):
        nested = {"image_processor": processor | {"resample": resample}}
        (model / "processor_config.json").write_text(json.dumps(nested))
        assert classify_again(again, lambda columns: Layout("csv", columns), Silent()).tally.decoded == decoded


@pytest.mark.parametrize(("shard", "count"), [(None, 5), ("1/2", None)])
def test_a_list_in_a_file_is_counted_and_one_in_a_pipe_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shard: str | None, count: int | None
) -> None:
    listed, pipe = tmp_path / "list", tmp_path / "pipe"
    listed.write_bytes(b"a\0.jpg\n\nb.jpg\r\n")
    os.mkfifo(pipe)
    observer = Recorder()
    for path in (str(listed), str(pipe), "-"):
        requested = Request(Inputs([SAMPLES], files_from=path), resume=Resume(shard=shard))
        begin_stage("classifying", requested, observer)
    mine = sum(1 for _ in shard_of(find(Inputs([SAMPLES], files_from=str(listed)), Skipped()), 1, 2))
    assert observer.counts == [mine if count is None else count]
    assert caplog.text.count("NUL") == 1  # of the run itself, not of the count


def test_images_that_need_no_work_are_kept_at_once_or_between_others(tmp_path: Path) -> None:
    """Of four images the second is new and the fourth is named twice."""
    for name in ("a", "b", "c", "d"):
        shutil.copy(Path(SAMPLES) / "cat.jpg", tmp_path / f"{name}.jpg")
    paths = {name: str(tmp_path / f"{name}.jpg") for name in "abcd"}
    target = str(tmp_path / "out.csv")
    observer = Recorder()
    for names, listener in (("acd", Silent()), ("abcdd", observer)):
        requested = replace(
            request(resume=Resume(out=target), target=target), inputs=Inputs([paths[name] for name in names])
        )
        classify_again(requested, lambda columns: Layout("csv", columns), listener)
    assert observer.stages[0] == ("classifying", None, 4, 1)


@pytest.mark.slow
def test_trainings_start_without_a_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images, observers = TrainingImages(str(draw_classes(tmp_path / "shapes", 5))), (Recorder(), Recorder())
    compute, size = Compute(workers=0, device="cpu", dtype="fp32"), ModelChoice("demo", image_size=16)
    probe = TrainingRequest(images, str(tmp_path / "probe"), model=ModelChoice("demo"), compute=compute)
    recipe = Recipe(from_scratch="tiny", epochs=2, batch_size=4)
    new = TrainingRequest(images, str(tmp_path / "new"), recipe, model=size, compute=compute)
    with ThreadPoolExecutor(1) as pool:  # a thread, as a notebook or a server has
        first, second = (pool.submit(train, *each).result() for each in zip((probe, new), observers, strict=True))
    count = first.facts.trained_on
    assert observers[0].stages == [("features", count, 0, count), ("fitting", 6, 0, 6)]
    validated = len(second.facts.validated)
    assert observers[1].stages == [
        *(("reading", count, 0, count), ("training", None, 0, 0)),
        ("validation", validated, 0, validated),
    ]
    assert observers[1].steps[-1] == 2 * ((count - validated) // 4)
    assert first.strength is not None and second.strength is None
    assert all((Path(each.out) / "model.safetensors").exists() for each in (first, second))
    assert str(tmp_path) not in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")  # for what is compiled later
    assert capfd.readouterr() == ("", "")


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    target = str(tmp_path / "out.csv")
    of_file = request(resume=Resume(out=target), target=target)
    with exclusive(target, wait=False), pytest.raises(BusyError):
        classify_into_file(of_file, lambda columns: Layout("csv", columns), Silent())
    report = classify_into_file(of_file, lambda columns: Layout("csv", columns), Silent())
    assert report.tally.decoded == 3
