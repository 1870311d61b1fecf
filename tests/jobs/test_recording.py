"""Runs as their ledger records them, their summaries for machines, and files of the results of a stopped run."""

import json
import logging
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from beitcli import __version__, signals
from beitcli.errors import OutputError, UsageError
from beitcli.jobs.classify import classify, classify_again
from beitcli.jobs.embed import embed
from beitcli.jobs.evaluate import EvaluationRequest, evaluate
from beitcli.jobs.observer import Silent
from beitcli.jobs.requests import Compute, Inputs, Labels, ModelChoice, Request, Resume
from beitcli.jobs.runs import export, runs_of
from beitcli.jobs.stream import Destination
from beitcli.model.catalog import DEMO_FOLDER
from beitcli.model.features import Encoding
from beitcli.outputs.destination import replaced_file
from beitcli.outputs.formats import by_suffix
from beitcli.outputs.writers import Layout
from tests.cli.batches import grow

NAMES = ["a.png", "b.png", "c.png", "d.png"]
MODEL, COMPUTE = ModelChoice("demo"), Compute(batch_size=1, workers=0, dtype="fp32")


class StoppedAfter(Silent):
    """Stops the run, as a signal does, after so many images."""

    def __init__(self, count: int) -> None:
        self.left = count

    def progress(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            raise signals.Stopped(15)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    grow(tmp_path / "images", NAMES)
    return tmp_path


@pytest.fixture
def val(folder: Path) -> str:
    """The images, as a folder of one class."""
    (folder / "images").rename(folder / "cat")
    (folder / "val").mkdir()
    (folder / "cat").rename(folder / "val" / "cat")
    return "val"


@pytest.fixture
def other_model(folder: Path) -> str:
    """The demonstration model under another name, and with another digest."""
    shutil.copytree(DEMO_FOLDER, folder / "other")
    with open(folder / "other" / "config.json", "a") as config:
        config.write("\n")
    return "other"


def request(out: str, model: ModelChoice = MODEL, **resume: object) -> Request:
    target = str(Path(out).absolute())
    return Request(Inputs(["images"]), model=model, compute=COMPUTE, resume=Resume(out, **resume), target=target)  # type: ignore[arg-type]


def run(requested: Request, observer: Silent | None = None) -> None:
    def layout(columns: int) -> Layout:
        return Layout(by_suffix(requested.target).name, columns)

    classify_again(requested, layout, observer or Silent())


def summary(path: str) -> dict[str, object]:
    return dict(json.loads(Path(path).read_text()))


def sources(path: str) -> list[str]:
    return [Path(json.loads(line)["source"]).name for line in Path(path).read_text().splitlines()]


def test_every_run_is_listed_with_its_settings_counts_and_end(folder: Path) -> None:
    Path("images/b.png").write_bytes(b"")
    run(request("out.csv"))
    run(replace(request("out.csv"), labels=Labels(threshold=0.25)))
    first, second = runs_of("out.csv")
    assert runs_of("out.csv.ledger") == [first, second]
    assert (first.command, first.model, first.version, first.exit_status) == ("batch", "demo", __version__, 3)
    assert first.settings == {"batch_size": 1, "workers": 0, "dtype": "fp32", "out": "out.csv"}
    assert second.settings == {**first.settings, "threshold": 0.25}
    counts = {"images": 4, "kept": 0, "decoded": 3, "reused": 0, "failed": 1, "codes": {"empty_file": 1}}
    assert {name: first.counts[name] for name in counts} == counts
    assert {name: second.counts[name] for name in counts} == counts | {"kept": 3, "decoded": 0}
    assert first.started <= (first.ended or "") <= second.started


@pytest.mark.parametrize("no_ledger", [False, True])
def test_a_summary_for_machines_tells_how_the_run_ended(folder: Path, no_ledger: bool) -> None:
    requested = request("out.csv", summary="run.json", no_ledger=no_ledger)

    def start(observer: Silent) -> None:
        if not no_ledger:
            run(requested, observer)
            return
        destination = Destination(lambda: replaced_file(requested.target, keeps_part=True), padded=True)
        classify(requested, lambda columns: Layout("csv", columns), destination, observer)

    with pytest.raises(signals.Stopped):
        start(StoppedAfter(2))
    stopped = summary("run.json")
    assert (stopped["signal"], stopped["exit_status"]) == ("SIGTERM", None)
    assert stopped["counts"]["decoded"] == 2  # type: ignore[index]
    Path("out.csv.part").unlink(missing_ok=True)
    Path("out.csv.part").mkdir()
    with pytest.raises(OutputError):
        start(Silent())
    failed = summary("run.json")
    assert (failed["signal"], failed["exit_status"]) == (None, 1)
    assert "Is a directory" in str(failed["error"])
    Path("out.csv.part").rmdir()
    start(Silent())
    ended = summary("run.json")
    assert (ended["exit_status"], ended["error"], ended["model"]) == (0, None, "demo")
    assert ended["digest"] == stopped["digest"] != ""
    assert no_ledger or [each.exit_status for each in runs_of("out.csv")] == [None, 1, 0]


def test_a_run_that_cannot_begin_leaves_no_summary_of_an_earlier_one(folder: Path) -> None:
    requested = request("out.csv", summary="run.json")
    run(requested)
    assert summary("run.json")["exit_status"] == 0
    Path("empty.txt").touch()
    with pytest.raises(OutputError, match="the list is empty"):
        run(replace(requested, inputs=Inputs(files_from="empty.txt")))
    assert not Path("run.json").exists()


def test_the_rate_of_an_evaluation_is_that_of_its_predictions(val: str) -> None:
    report = evaluate(EvaluationRequest(request("eval.json", summary="run.json"), val), Silent()).report
    assert json.loads(Path("run.json").read_text())["counts"]["images_per_second"] == 4 / report.timings.total


def test_an_evaluation_ends_when_its_figures_are_written(val: str) -> None:
    requested = EvaluationRequest(request("eval.json", summary="run.json"), val)
    Path("eval.json.part").mkdir()
    with pytest.raises(OutputError):
        evaluate(requested, Silent())
    assert summary("run.json")["exit_status"] == 1
    Path("eval.json.part").rmdir()
    evaluate(requested, Silent())
    assert [(each.command, each.exit_status) for each in runs_of("eval.json")] == [("eval", 1), ("eval", 0)]
    assert export("eval.json", "out.csv", Silent()).images == 4


@pytest.mark.parametrize("path", ["out.csv", "-", "images.txt", "/dev/null"])
def test_the_summary_is_a_file_of_its_own(folder: Path, path: str) -> None:
    Path("images.txt").touch()
    requested = request("out.csv", summary=path)
    with pytest.raises(UsageError):
        replace(requested, inputs=Inputs(files_from="images.txt")).check()


def test_a_stopped_run_exports_what_it_has_answered(folder: Path) -> None:
    with pytest.raises(signals.Stopped):
        run(request("out.csv"), StoppedAfter(3))
    assert export("out.csv", "so-far.jsonl", Silent()).images == 3
    assert sources("so-far.jsonl") == NAMES[:3]
    assert not Path("out.csv").exists()
    run(request("out.csv"))
    export("out.csv", "all.csv", Silent())
    assert Path("all.csv").read_bytes() == Path("out.csv").read_bytes()
    with pytest.raises(UsageError):
        export("out.csv", "out.csv", Silent())


def test_an_export_never_mixes_two_models(folder: Path, other_model: str) -> None:
    run(request("out.csv"))
    with pytest.raises(signals.Stopped):
        run(request("out.csv", ModelChoice(other_model)), StoppedAfter(1))
    export("out.csv", "so-far.jsonl", Silent())
    assert sources("so-far.jsonl") == NAMES[:1]


def test_an_export_keeps_the_results_of_images_that_the_stopped_run_had_not_reached(folder: Path) -> None:
    run(request("out.csv"))
    grow(folder / "images", ["a.png", "bb.png", "e.png"], seed=2)
    with pytest.raises(signals.Stopped):
        run(request("out.csv"), StoppedAfter(1))
    export("out.csv", "so-far.jsonl", Silent())
    assert sources("so-far.jsonl") == NAMES


def test_features_so_far_are_exported(folder: Path) -> None:
    with pytest.raises(signals.Stopped):
        embed(request("all.npy"), Encoding("mean"), StoppedAfter(2))
    export("all.npy", "so-far.npy", Silent())
    embed(request("all.npy"), Encoding("mean"), Silent())
    assert np.array_equal(np.load("so-far.npy"), np.load("all.npy")[:2])
    assert Path("so-far.npy.index.csv").read_text().splitlines()[1:] == ["0,images/a.png,ok,,", "1,images/b.png,ok,,"]


def test_a_change_of_model_is_told_by_name(folder: Path, other_model: str, caplog: pytest.LogCaptureFixture) -> None:
    run(request("out.csv"))
    caplog.set_level(logging.INFO)
    run(request("out.csv", ModelChoice(other_model)))
    before, now = (each.digest for each in runs_of("out.csv"))
    assert f"4 results of other settings are recomputed (model demo ({before}) -> other ({now}))" in caplog.messages


def metadata(path: str) -> dict[bytes, bytes]:
    return dict(parquet.ParquetFile(path).schema_arrow.metadata)


def test_parquet_names_the_model_and_the_versions_that_answered(folder: Path) -> None:
    run(request("out.parquet"))
    embed(request("features.parquet"), Encoding("mean"), Silent())
    [made] = runs_of("out.parquet")
    named = {b"model": b"demo", b"model_digest": made.digest.encode(), b"beit_version": __version__.encode()}
    assert metadata("out.parquet") == named
    assert metadata("features.parquet") == named | {b"shape": b"[256]"}
    run(request("again.parquet", fresh=True))
    assert Path("again.parquet").read_bytes() == Path("out.parquet").read_bytes()
    with closing(sqlite3.connect("out.parquet.ledger")) as database, database:
        database.execute("UPDATE runs SET version = '0.0.9'")
    grow(folder / "images", ["e.png"], seed=2)
    run(request("out.parquet"))
    assert metadata("out.parquet")[b"beit_version"] == f"0.0.9, {__version__}".encode()
