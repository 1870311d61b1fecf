"""Results that hold under other settings are kept: only those are computed again that a change may affect."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli import signals
from beitcli.errors import OutputError, UsageError
from beitcli.jobs.classify import classify_again, preview_classification
from beitcli.jobs.embed import embed, preview_embedding
from beitcli.jobs.observer import Silent
from beitcli.jobs.requests import Compute, Inputs, Labels, Limits, ModelChoice, Request, Resume
from beitcli.jobs.runs import export
from beitcli.jobs.tasks import resumable_classification_task
from beitcli.model.catalog import DEMO_FOLDER
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.features import Encoding
from beitcli.outputs.writers import Layout

HEIC = Path(__file__).parents[1] / "field" / "grid-whole.heic"
COMPUTE = Compute(workers=0, dtype="fp32", batch_size=4)
SIDES = (10, 20, 30)
"""Sides of the images, all different."""


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of noise in squares of three sizes, a file that is none, and the working folder beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(1)
    for side in SIDES:
        Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8)).save(folder / f"{side}.png")
    (folder / "broken.png").write_text("no image")
    return folder


class StoppedAtOnce(Silent):
    """Stops the run, as a signal does, before its first image."""

    def kept(self, count: int) -> None:
        raise signals.Stopped(15)


def run(request: Request, observer: Silent | None = None) -> tuple[int, int, int]:
    """The numbers of images kept, decoded and failed."""
    suffix = os.path.splitext(request.target)[1][1:]
    tally = classify_again(request, lambda columns: Layout(suffix, columns), observer or Silent()).tally
    return tally.kept, tally.decoded + tally.reused, tally.failed.total()


def request(out: str = "out.csv", **parts: object) -> Request:
    requested = Request(Inputs(["images"]), model=ModelChoice("demo"), compute=COMPUTE, resume=Resume(out=out))
    requested = replace(requested, target=os.path.realpath(out), **parts)  # type: ignore[arg-type]
    requested.check()
    return requested


# Labels


def test_fewer_labels_are_a_part_of_more(tmp_path: Path) -> None:
    assert run(request()) == (0, 3, 1)
    assert run(request(labels=Labels(top_k=1))) == (3, 0, 1)
    few = Path("out.csv").read_bytes()
    assert run(request("fresh.csv", labels=Labels(top_k=1))) == (0, 3, 1)
    assert Path("fresh.csv").read_bytes() == few
    assert run(request("fresh.csv")) == (3, 0, 1)  # all labels of few are kept


@pytest.mark.parametrize(
    ("labels", "top_k", "kept"), [(10, 1, "10"), (10, 0, "10"), (1000, 1, "5"), (1000, 7, "7"), (1000, 0, "1000")]
)
def test_a_ledger_keeps_five_labels_or_all_of_few(labels: int, top_k: int, kept: str) -> None:
    checkpoint = replace(open_checkpoint(str(DEMO_FOLDER), None), labels=tuple(map(str, range(labels))))
    assert resumable_classification_task("batch", checkpoint, top_k).facts["--top-k"] == kept


# Extras


def test_an_extra_concerns_only_the_failures_that_it_may_cure(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pillow_heif")
    for name in ("a.heic", "b.heic"):
        shutil.copy(HEIC, images / name)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
        assert run(request()) == (0, 3, 3)
    assert run(request()) == (3, 2, 1)
    assert run(request()) == (5, 0, 1)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert run(request()) == (5, 0, 1)


# Pixels


def test_a_limit_of_pixels_concerns_only_the_images_beyond_it(images: Path) -> None:
    def within(most: int) -> tuple[int, int, int]:
        return run(request(limits=Limits(max_pixels=most)))

    assert within(20 * 20) == (0, 2, 2)
    assert within(30 * 30) == (2, 1, 1)
    assert within(100 * 100) == (3, 0, 1)
    assert within(20 * 20) == (2, 0, 2)
    assert within(10 * 10) == (1, 0, 3)
    assert within(20 * 20 - 1) == (1, 0, 3)
    assert within(100 * 100) == (1, 2, 1)


def test_pixels_of_another_image_do_not_count(images: Path) -> None:
    assert run(request()) == (0, 3, 1)
    shutil.copy(images / "30.png", images / "10.png")
    now = (images / "10.png").stat()
    with closing(sqlite3.connect("out.csv.ledger")) as database, database:  # as a version that counts no pixels does
        statement = "UPDATE pictures SET size = ?, mtime_ns = ?, digest = x'00' WHERE source = ?"
        database.execute(statement, (now.st_size, now.st_mtime_ns, b"images/10.png"))
    assert run(request(limits=Limits(max_pixels=20 * 20))) == (1, 0, 3)


def test_an_export_has_what_was_kept_from_other_settings() -> None:
    assert run(request()) == (0, 3, 1)
    assert run(request(labels=Labels(top_k=1), limits=Limits(max_pixels=30 * 30))) == (3, 0, 1)
    export("out.csv", "so-far.csv", Silent())
    assert Path("so-far.csv").read_bytes() == Path("out.csv").read_bytes()


def test_an_export_has_no_result_that_the_stopped_run_would_have_computed_again() -> None:
    assert run(request()) == (0, 3, 1)
    with pytest.raises(signals.Stopped):
        run(request(limits=Limits(max_pixels=20 * 20)), StoppedAtOnce())
    export("out.csv", "so-far.csv", Silent())
    kept = [line for line in Path("out.csv").read_bytes().splitlines() if not line.startswith(b"images/30.png")]
    assert Path("so-far.csv").read_bytes().splitlines() == kept


# Other outputs of the same results


def test_another_format_begins_with_the_results_of_the_first(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(request("preds.csv")) == (0, 3, 1)
    (images / "10.png").unlink()
    assert preview_classification(request("preds.jsonl", resume=Resume(out="preds.jsonl", dry_run=True))) == {
        "new": 0,
        "changed": 0,
        "to retry": 0,
        "up to date": 3,
        "gone": 1,
    }
    assert not Path("preds.jsonl.ledger").exists()
    caplog.set_level("INFO", "beitcli")
    assert run(request("preds.jsonl")) == (2, 0, 1)
    assert [text for text in caplog.messages if "results" in text] == ["4 results are taken from `preds.csv.ledger`"]
    assert run(request("alone.jsonl")) == (0, 2, 1)
    assert Path("preds.jsonl").read_bytes() == Path("alone.jsonl").read_bytes()
    assert run(request("preds.csv")) == run(request("preds.jsonl")) == (2, 0, 1)


@pytest.mark.parametrize(
    ("out", "parts"),
    [
        ("other.jsonl", {}),
        ("preds.jsonl", {"limits": Limits(fast_decode=True)}),
        ("preds.jsonl", {"resume": Resume(out="preds.jsonl", fresh=True)}),
    ],
    ids=["another name", "other settings", "fresh"],
)
def test_a_run_of_its_own_begins_without(out: str, parts: dict[str, object]) -> None:
    assert run(request("preds.csv")) == (0, 3, 1)
    assert run(request(out, **parts)) == (0, 3, 1)


def test_of_several_siblings_the_one_with_the_most_results_is_used(images: Path) -> None:
    for number in range(500):
        Image.new("L", (1, 1)).save(images / f"{number:03}.png")
    assert run(request("preds.csv")) == (0, 503, 1)
    few = request("preds.jsonl", inputs=Inputs(["images/10.png"]), resume=Resume(out="preds.jsonl"))
    assert run(few) == (1, 0, 0)
    assert run(request("preds.tsv")) == (503, 0, 1)


def test_a_sibling_that_cannot_be_used_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    Path("preds.tsv.ledger").write_text("no database")
    caplog.set_level("INFO", "beitcli")
    assert run(request("preds.csv")) == (0, 3, 1)
    assert "the results in" in caplog.text and "are not used" in caplog.text
    assert Path("preds.tsv.ledger").read_text() == "no database"


def test_one_ledger_for_several_outputs(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "beitcli")

    def shared(out: str, **options: object) -> Request:
        return request(out, resume=Resume(out=out, ledger="shared.db", **options))  # type: ignore[arg-type]

    assert run(shared("one.csv")) == (0, 3, 1)
    assert run(shared("two.jsonl")) == (3, 0, 1)
    written = [os.stat(name).st_ino for name in ("one.csv", "two.jsonl")]
    few = replace(shared("three.jsonl"), inputs=Inputs(["images/30.png", "images/10.png"]))
    assert run(few) == (2, 0, 0)
    assert [line.split('"')[3] for line in Path("three.jsonl").read_text().splitlines()] == few.inputs.inputs
    assert run(shared("one.csv")) == run(shared("two.jsonl")) == (3, 0, 1)
    assert [os.stat(name).st_ino for name in ("one.csv", "two.jsonl")] == written  # neither is written again
    (images / "broken.png").unlink()
    shutil.copy(images / "10.png", images / "20.png")
    assert run(few) == (2, 0, 0)
    assert run(shared("one.csv")) == (2, 1, 0)
    assert run(shared("two.jsonl")) == (3, 0, 0)
    assert "broken" not in Path("two.jsonl").read_text()
    assert "no longer among the inputs" not in caplog.text
    assert sorted(os.listdir()) == ["images", "one.csv", "shared.db", "three.jsonl", "two.jsonl"]


def test_an_output_of_another_is_stale_when_a_result_changes_under_it(images: Path) -> None:
    def shared(out: str, model: str = "demo") -> Request:
        return request(out, model=ModelChoice(model), resume=Resume(out=out, ledger="one.csv.ledger"))

    run(shared("one.csv"))
    run(shared("two.csv"))
    before = Path("two.csv").read_bytes()
    shutil.copy(images / "10.png", images / "20.png")
    run(shared("one.csv"))
    run(shared("two.csv"))
    assert Path("two.csv").read_bytes() == Path("one.csv").read_bytes() != before


def test_a_shared_ledger_is_of_one_run_at_a_time() -> None:
    held = "import fcntl; lock = open('s.lock', 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        with pytest.raises(OutputError, match="another run is writing"):
            run(request("one.csv", resume=Resume(out="one.csv", ledger="s.ledger")))
        other.communicate(b"\n")
    assert run(request("one.csv", resume=Resume(out="one.csv", ledger="s.ledger"))) == (0, 3, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ledger": "one.csv"}, "is the output"),
        ({"ledger": "shared", "no_ledger": True}, "keeps no results"),
        ({"out": "-", "ledger": "shared"}, "keeps no results"),
    ],
)
def test_a_ledger_that_no_run_can_have(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        request("one.csv", resume=Resume(**{"out": "one.csv"} | options))  # type: ignore[arg-type]


def test_features_begin_with_those_of_a_sibling() -> None:
    def features(out: str, pool: str = "mean", **options: object) -> tuple[int, int, int]:
        requested = request(out, resume=Resume(out=out, **options))  # type: ignore[arg-type]
        tally = embed(requested, Encoding(pool), Silent()).tally  # type: ignore[arg-type]
        return tally.kept, tally.decoded, tally.failed.total()

    assert features("a.npy") == (0, 3, 1)
    requested = request("a.npz", resume=Resume(out="a.npz", dry_run=True))
    assert preview_embedding(requested, Encoding("mean"))["up to date"] == 4
    assert not Path("a.npz.ledger-features").exists()
    assert features("a.npz") == (3, 0, 1)
    np.testing.assert_array_equal(np.load("a.npz")["features"], np.load("a.npy"))
    assert features("b.npz", ledger="a.npy.ledger") == (3, 0, 1)
    assert Path("b.npz").read_bytes() == Path("a.npz").read_bytes()
    assert features("a.parquet", pool="cls") == (0, 3, 1)
