"""`beit eval` as a real process: figures against the rows of `beit batch`, files, usage errors, and stopping."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli.outputs.lock import exclusive
from beitcli.training.digests import write_digests
from tests.cli.batches import counts, grow, numbered, stored_results, wait_for_results
from tests.cli.test_exit_status import check_mistake
from tests.cli.test_runs import on_terminal
from tests.cli.test_signals import descendants, start
from tests.conftest import SAMPLES
from tests.inputs.test_loader import is_running

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]
DEMO = ("-m", "demo", "--dtype", "fp32")
SAMPLE_CLASSES = {"cat.jpg": "cat", "boats.jpg": "ship", "coffee.jpg": "frog"}


FAILED = b"beit: error: 5 of 40 images failed (2 empty_file, 2 truncated, 1 not_an_image)\n"
"""Output of a quiet run over `val`."""


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Forty images in four classes, some in folders further down; five are broken in three ways."""
    folder, random = tmp_path / "val", np.random.default_rng(4)
    for name, label in SAMPLE_CLASSES.items():
        (folder / label / "more").mkdir(parents=True)
        shutil.copy(SAMPLES / name, folder / label)
    (folder / "automobile").mkdir()
    for number in range(37):
        label = ("cat", "ship", "frog/more", "automobile")[number % 4]
        colors = random.integers(0, 256, (3, 3, 3), np.uint8)
        Image.fromarray(colors).resize((48, 40)).save(folder / label / f"{number:02}.png")
    broken = sorted(folder.glob("**/*.png"))[::8]
    for number, path in enumerate(broken):
        path.write_bytes((path.read_bytes()[:90], b"", b"no image at all")[number % 3])
    return folder


@pytest.mark.slow
def test_figures_are_those_of_the_rows_of_batch(beit: Beit, val: Path, tmp_path: Path) -> None:
    process = beit("eval", val, *DEMO, "-b", 4, "--json", "eval.json")
    assert process.returncode == 3
    report = json.loads((tmp_path / "eval.json").read_text())
    rows = [json.loads(line) for line in beit("batch", val, *DEMO, "-b", 4, "-f", "jsonl").stdout.splitlines()]
    failed: dict[str, list[dict[str, str]]] = {}
    pairs: Counter[tuple[str, str]] = Counter()
    top5, mistakes = 0, []
    for row in rows:
        if row["status"] == "error":
            error = {"source": row["source"], "message": row["error"]["message"]}
            failed.setdefault(row["error"]["code"], []).append(error)
            continue
        true = Path(row["source"]).relative_to(val).parts[0]
        best = row["predictions"][0]
        pairs[true, best["label"]] += 1
        top5 += true in [prediction["label"] for prediction in row["predictions"]]
        if best["label"] != true:
            mistakes.append((best["score"], row["source"]))
    assert (len(rows), sum(map(len, failed.values())), len(failed)) == (40, 5, 3)
    assert report["failures"] == failed
    assert (report["read"], report["failed"]) == (35, 5)
    figures = report["figures"]
    label = {each["index"]: each["label"] for each in figures["classes"]}
    assert {(label[c["true"]], label[c["predicted"]]): c["images"] for c in figures["confusion"]} == pairs
    correct = sum(count for (true, best), count in pairs.items() if true == best)
    assert 0 < correct < 35
    assert (figures["top1"]["value"], figures["top5"]["value"]) == (correct / 35, top5 / 35)
    assert [(each["score"], each["source"]) for each in figures["mistakes"]] == sorted(mistakes, key=lambda m: -m[0])
    recalls = {each["label"]: each["recall"]["value"] for each in figures["classes"] if each["images"]}
    by_class = Counter(true for true, _ in pairs.elements())
    assert recalls == {true: pytest.approx(pairs[true, true] / count) for true, count in by_class.items()}
    assert figures["macro"]["value"] == pytest.approx(sum(recalls.values()) / 4)
    assert b"40 images: 0 kept, 35 decoded, 0 reused, 5 failed\n" in process.stderr


def test_json_names_what_was_measured_and_how(beit: Beit, val: Path, tmp_path: Path) -> None:
    process = beit("eval", val, *DEMO, "--preprocess", "paper", "--json", "eval.json", "--fail-on", "never")
    assert process.returncode == 0
    report = json.loads((tmp_path / "eval.json").read_text())
    assert list(report) == [
        "version", "setting", "ground_truth", "published", "read", "failed", "skipped", "failures", "figures",
    ]  # fmt: skip
    assert report["setting"] | {"location": "", "device": ""} == {
        "model": "demo",
        "location": "",
        "revision": None,
        "labels": 10,
        "preprocess": "paper",
        "image_size": None,
        "fast_decode": False,
        "device": "",
        "dtype": "fp32",
    }
    assert report["ground_truth"] == {"source": str(val), "classes": 4, "matched_by": {"name": 4}}
    assert report["published"] == {"top1": 87.8, "top5": 99.56, "images": "CIFAR-10", "preprocess": "checkpoint"}
    assert b"on CIFAR-10 with --preprocess checkpoint, other than this run" in process.stdout


TABLES = {
    "a.csv": "source,confidence,label\nval/cat/cat.jpg,1,cat\n{samples}/boats.jpg,1,ship\nval/frog/coffee.jpg,1,Frog\n",
    "b.csv": "val/cat/cat.jpg,3\n{samples}/boats.jpg,8\nval/frog/coffee.jpg,6\n",
    "c.tsv": "label\tpath\ncat\tval/cat/cat.jpg\nSHIP\t{samples}/boats.jpg\nfrog\tval/frog/coffee.jpg\n",
    "val/beside.csv": "cat/cat.jpg,cat\n{samples}/boats.jpg,ship\nfrog/coffee.jpg,frog\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_give_what_folders_give(beit: Beit, val: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLES[name].format(samples=SAMPLES))
    process = beit("eval", "--labels", name, *DEMO, "--json", "eval.json")
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "eval.json").read_text())
    confusion = {(each["true"], each["predicted"]) for each in report["figures"]["confusion"]}
    assert confusion == {(3, 3), (8, 8), (6, 1)}
    assert sum(report["ground_truth"]["matched_by"].values()) == report["ground_truth"]["classes"] == 3


def test_a_missing_file_of_a_table_is_a_failure(beit: Beit, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"{SAMPLES}/cat.jpg,cat\nmissing.jpg,ship\n{SAMPLES}/cat.jpg,dog\n")
    process = beit("eval", "--labels", "labels.csv", *DEMO, "--json", "eval.json")
    assert process.returncode == 3
    report = json.loads((tmp_path / "eval.json").read_text())
    assert counts(process.stderr.decode()) == (3, 0, 1, 1, 1)
    assert list(report["failures"]) == ["not_found"]
    assert report["figures"]["top1"]["value"] == 0.5  # the cat is there twice, once as a dog
    assert f"1 images have more than one label, such as {SAMPLES}/cat.jpg".encode() in process.stderr


def test_synonyms_of_another_model(beit: Beit, tiny_beit: Path, tmp_path: Path) -> None:
    for name in ("moo cow", "cow, moo cow", "ANT"):
        (tmp_path / "val" / name).mkdir(parents=True)
        shutil.copy(SAMPLES / "cat.jpg", tmp_path / "val" / name)
    assert beit("eval", "val", "-m", tiny_beit, "--json", "eval.json").returncode == 0
    report = json.loads((tmp_path / "eval.json").read_text())
    assert report["ground_truth"] == {"source": "val", "classes": 2, "matched_by": {"name": 2, "synonym": 1}}
    assert report["published"] is None
    assert report["figures"]["top5"]["value"] == 1  # five labels


def test_no_readable_image_gives_a_notice_and_no_figures(beit: Beit, tmp_path: Path) -> None:
    (tmp_path / "val" / "cat").mkdir(parents=True)
    (tmp_path / "val" / "cat" / "a.jpg").write_bytes(b"")
    process = beit("eval", "val", *DEMO, "--json", "eval.json", "--plots", "plots")
    assert process.returncode == 3
    assert b"beit: no image could be read: there are no figures\n" in process.stderr
    assert re.search(rb"images +0 read, 1 failed\n", process.stdout)
    report = json.loads((tmp_path / "eval.json").read_text())
    assert (report["read"], report["failed"], report["figures"]["top1"]) == (0, 1, None)
    assert sorted(os.listdir(tmp_path / "plots")) == ["confusion.csv", "confusion.png", "reliability.png"]


def test_plots_and_the_matrix(beit: Beit, val: Path, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    process = beit("eval", val, *DEMO, "--json", "eval.json", "--plots", "plots/", "-q")
    assert (process.returncode, process.stderr) == (3, FAILED)
    assert sorted(os.listdir(tmp_path / "plots")) == ["confusion.csv", "confusion.png", "reliability.png"]
    for name in ("confusion.png", "reliability.png"):
        with Image.open(tmp_path / "plots" / name) as drawn:
            assert drawn.format == "PNG"
    header, *rows = csv.reader((tmp_path / "plots" / "confusion.csv").read_text().splitlines())
    counts = {(row[0], name): int(count) for row in rows for name, count in zip(header[1:], row[1:], strict=True)}
    figures = json.loads((tmp_path / "eval.json").read_text())["figures"]
    label = {each["index"]: each["label"] for each in figures["classes"]}
    assert {pair: count for pair, count in counts.items() if count} == {
        (label[each["true"]], label[each["predicted"]]): each["images"] for each in figures["confusion"]
    }


def test_a_pipe_gets_plain_text(val: Path, beit: Beit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    process = beit("eval", val, *DEMO, "--color", "always")
    assert b"\x1b" not in process.stdout
    titles = [block.splitlines()[0] for block in process.stdout.decode().rstrip().split("\n\n")]
    assert titles == ["Evaluation", "Figures", "Classes", "Most often confused", "Most confident mistakes"]
    assert re.search(r"top-1 +\d+\.\d\d % +\d+\.\d\d–\d+\.\d\d % +87\.8 %\n", process.stdout.decode())


@pytest.mark.slow
def test_a_terminal_gets_tables(val: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    drawn = on_terminal("eval", str(val), *DEMO)
    assert "\x1b[" in drawn
    assert "35 read, 5 failed" in drawn
    assert "\x1b[" not in on_terminal("eval", str(val), *DEMO, "--color", "never")


@pytest.fixture
def folder(val: Path, tmp_path: Path) -> Path:
    """A folder with inputs for every kind of usage error."""
    shutil.copytree(val, tmp_path / "unknown")
    (tmp_path / "unknown" / "frog").rename(tmp_path / "unknown" / "forg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "header.csv").write_text("path,label\n")
    for name in ("whole.csv", "confusion.csv"):
        (tmp_path / name).write_text("val/cat/cat.jpg,cat\n")
    (tmp_path / "hole.csv").write_text("a.jpg,cat\nb.jpg\n")
    (tmp_path / "mixed.csv").write_text("val/cat/cat.jpg,cat\nval/ship/boats.jpg,8\n")
    (tmp_path / "file").touch()
    return tmp_path


LIGHT = [
    ("eval", 2, "nothing to evaluate"),
    ("eval val --labels hole.csv", 2, "a folder and --labels both"),
    ("eval missing", 2, "`missing` does not exist"),
    ("eval empty", 2, "no image in `empty`"),
    ("eval val/cat", 2, "is in no class folder"),
    ("eval --labels missing.csv", 2, "cannot read the labels in `missing.csv`"),
    ("eval --labels header.csv", 2, "`header.csv` has no row"),
    ("eval --labels hole.csv", 2, "`hole.csv`, row 2: no path and label"),
    ("eval --labels hole.csv --ext jpg", 2, "nothing is walked"),
    ("eval unknown -m demo", 2, "no class for 1 of 4 labels: `forg` (nearest: frog"),
    ("eval --labels mixed.csv -m demo", 2, "no one reading fits all 2 labels: by name, no class for `8`"),
    ("eval val -m demo --label-by index", 2, "no class for 4 of 4 labels: `automobile`"),
    ("eval val -m demo --fail-on 2", 2, "--fail-on 2"),
    ("eval val --device abacus", 2, "--device abacus"),
    ("eval val --top-k 3", 2, "No such option"),
    ("eval --labels hole.csv --json hole.csv -m demo", 2, "row 2"),
    ("eval --labels whole.csv --json whole.csv -m demo", 2, "`whole.csv` is an input, and would be overwritten"),
    ("eval --labels confusion.csv --plots . -m demo", 2, "`confusion.csv` is an input, and would be overwritten"),
    ("eval val --json val/cat/cat.jpg -m demo", 2, "val/cat/cat.jpg` is an input, and would be overwritten"),
    ("eval val -m demo --fresh", 2, "--fresh needs a ledger"),
    ("eval val -m demo --json /dev/stdout --prune", 2, "--prune needs a ledger"),
    ("eval val -m demo --json nowhere/x.json", 1, "does not exist"),
    ("eval val -m demo --json val", 1, "names no file"),
    ("eval --labels whole.csv --mistakes whole.csv -m demo", 2, "`whole.csv` is an input, and would be overwritten"),
    ("eval val -m demo --json x.csv --mistakes ./x.csv", 2, "--json and --mistakes are one file, `x.csv`"),
    ("eval val -m demo --mistakes nowhere/x.csv", 1, "does not exist"),
    ("eval --labels whole.csv --summary whole.csv -m demo", 2, "`whole.csv` is an input, and would be overwritten"),
    ("eval val -m demo --mistakes x.csv --summary ./x.csv", 2, "--summary ./x.csv: no file of its own"),
    ("eval val -m demo --plots val/plots", 2, "`val/plots` is in the folder of the images"),
    ("eval val -m demo --plots nowhere/x", 1, "does not exist"),
    ("eval val -m demo --plots file", 1, "`file` is no folder"),
    ("eval val", 1, "is not cached and the Hub cannot be reached"),
]


@pytest.mark.parametrize(("line", "status", "message"), LIGHT, ids=[row[0] for row in LIGHT])
def test_mistakes_are_one_line_and_leave_nothing(
    beit: Beit, folder: Path, line: str, status: int, message: str
) -> None:
    before = sorted(folder.rglob("*"))
    check_mistake(beit(*line.split(), light=True), status, message)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
def test_plots_without_matplotlib_name_the_extra(val: Path, tmp_path: Path) -> None:
    without = "import sys; sys.modules['matplotlib'] = None; from beitcli.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", without, "eval", "val", "-m", "demo"]
    process = subprocess.run([*command, "--plots", "p"], cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "beit: error: --plots needs matplotlib",
        "hint: `pip install 'beitcli[plots]'`",
    ]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 3


def test_json_into_a_stream(val: Path, beit: Beit) -> None:
    process = beit("eval", val, *DEMO, "--json", "/dev/stderr", "-q", "--fail-on", "never")
    assert json.loads(process.stderr)["read"] == 35
    assert process.stdout.startswith(b"Evaluation\n")


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_changes_nothing(val: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "beitcli", "eval", str(val), *DEMO, "-q"]
    process = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert (process.returncode, process.stderr) == (3, FAILED)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_it_gives_no_figure_and_goes_on_from_there(beit: Beit, tmp_path: Path, number: signal.Signals) -> None:
    for label in ("cat", "ship"):
        grow(tmp_path / "val" / label, numbered(120), seed=len(label))
    options = ("eval", tmp_path / "val", *DEMO, "-b", 4, "--json", tmp_path / "eval.json")
    process = start(*options, "--plots", tmp_path / "plots", stdout=subprocess.PIPE)
    wait_for_results(process, tmp_path / "eval.json.ledger", more_than=7)
    workers = descendants(process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (-number, b"")
    assert b"Traceback" not in stderr
    assert not (tmp_path / "eval.json").exists() and not (tmp_path / "plots").exists()
    assert workers
    until = time.monotonic() + 60  # after SIGKILL, workers notice that the parent is gone
    while any(map(is_running, workers)):
        assert time.monotonic() < until
        time.sleep(0.05)
    done = stored_results(tmp_path / "eval.json.ledger")
    assert 8 <= done < 240
    again = counts(beit(*options).stderr.decode())
    assert (again.kept, again.decoded) == (done, 240 - done)
    whole = (tmp_path / "eval.json").read_bytes()
    assert counts(beit(*options).stderr.decode()).kept == 240
    assert (tmp_path / "eval.json").read_bytes() == whole
    assert beit(*options, "--no-ledger").returncode == 0
    assert (tmp_path / "eval.json").read_bytes() == whole


@pytest.mark.slow
def test_changed_images_are_measured_again(beit: Beit, val: Path, tmp_path: Path) -> None:
    options = ("eval", val, *DEMO, "--json", "eval.json")
    first = beit(*options)
    shutil.copy(SAMPLES / "cat.jpg", val / "ship" / "cat.jpg")
    (val / "cat" / "cat.jpg").unlink()
    second = beit(*options, "--prune")
    report = json.loads((tmp_path / "eval.json").read_text())
    assert (first.returncode, second.returncode) == (3, 3)
    assert counts(second.stderr.decode()) == (40, 34, 0, 1, 5)  # of an identical image
    assert f"{val}/ship/cat.jpg" in [mistake["source"] for mistake in report["figures"]["mistakes"]]
    assert counts(beit(*options, "-m", "demo", "--image-size", "64").stderr.decode()).decoded == 35
    assert counts(beit(*options, "--fresh").stderr.decode()).kept == 0


def test_a_second_run_at_once_is_refused(beit: Beit, val: Path, tmp_path: Path) -> None:
    with exclusive(str(tmp_path / "eval.json"), wait=False):
        check_mistake(beit("eval", val, *DEMO, "-q", "--json", "eval.json"), 4, "another run is writing")


@pytest.mark.slow
def test_a_table_names_files_by_their_bytes_in_any_locale(
    beit: Beit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "日本.jpg")
    (tmp_path / "labels.csv").write_text("path,label\n日本.jpg,cat\n")
    for name, value in (("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0"), ("LC_ALL", "C")):
        monkeypatch.setenv(name, value)
    process = beit("eval", "--labels", "labels.csv", "-m", "demo", "-q")
    assert (process.returncode, b"100.00 %" in process.stdout) == (0, True), process.stderr


def test_all_mistakes_are_written_with_their_names(beit: Beit, tmp_path: Path) -> None:
    val = tmp_path / "val"
    for name in ("cat", "ship"):
        grow(val / name, numbered(60), seed=len(name))
    os.rename(val / "cat" / "000.png", os.fsencode(val) + b"/cat/\xff,\n.png")
    process = beit("eval", val, *DEMO, "--json", "eval.json", "--mistakes", "mistakes.csv", "-q")
    assert process.returncode == 0, process.stderr
    figures = json.loads((tmp_path / "eval.json").read_text())["figures"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "mistakes.csv").read_text(), newline="")))
    assert len(rows) == round(120 * (1 - figures["top1"]["value"])) > len(figures["mistakes"]) == 100
    label = {each["index"]: each["label"] for each in figures["classes"]}
    assert [tuple(row.values()) for row in rows[:100]] == [
        (each["source"], label[each["true"]], label[each["predicted"]], str(each["score"]))
        for each in figures["mistakes"]
    ]
    assert f"{val}/cat/\\xff,\n.png" in [row["path"] for row in rows]
    assert all(row["true_label"] == Path(row["path"]).parent.name != row["predicted_label"] for row in rows)


def test_images_that_the_model_has_learnt_from_are_counted_first(
    beit: Beit, tiny_beit: Path, val: Path, tmp_path: Path
) -> None:
    model, learnt = shutil.copytree(tiny_beit, tmp_path / "model"), tmp_path / "val" / "cat" / "cat.jpg"
    (tmp_path / "labels.csv").write_text(f"{learnt},ant\n{SAMPLES / 'boats.jpg'},bee\n{SAMPLES / 'cat.jpg'},bee\n")
    command = ("eval", "--labels", "labels.csv", "-m", "./model", "--json", "eval.json", "--color", "always")
    assert beit(*command).stdout.startswith(b"Evaluation\n")
    assert "learnt" not in json.loads((tmp_path / "eval.json").read_text())
    write_digests([sha256(path.read_bytes()).digest() for path in (learnt, *val.rglob("*.png"))], str(model))
    first, blank, title = beit(*command).stdout.decode().splitlines()[:3]
    assert first == "`./model` has learnt from 2 of these 3 images: on others it may be less accurate"
    assert (blank, title) == ("", "Evaluation")
    assert json.loads((tmp_path / "eval.json").read_text())["learnt"] == 2
    undigested = beit(*command, "--no-dedupe", "--fresh")
    assert b"digest" in undigested.stderr and undigested.stdout.startswith(b"Evaluation\n")
