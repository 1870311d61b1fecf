"""Whole runs as real processes: inputs, formats, and predictions that depend on no other image."""

import csv
import gzip
import io
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from tests.conftest import SAMPLES

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]
DEMO = ("-m", "demo", "--dtype", "fp32")
SAMPLE_LABELS = {"boats.jpg": "ship", "cat.jpg": "cat", "coffee.jpg": "automobile"}


def rows(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def best(text: bytes) -> dict[str, str]:
    return {Path(row["source"]).name: row["predictions"][0]["label"] for row in rows(text)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Thirty-odd images of noise of many sizes, some of them broken, one in a folder of its own."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    random = np.random.default_rng(3)
    for number in range(30):
        size = (int(random.integers(8, 90)), int(random.integers(8, 90)), 3)
        image = Image.fromarray(random.integers(0, 256, size, np.uint8))
        image.save(folder / ("sub" if number % 4 == 0 else "") / f"{number:02}.png")
    for number in (5, 6, 7):
        (folder / f"{number:02}.png").write_bytes((folder / f"{number:02}.png").read_bytes()[:60])
    (folder / "31.jpg").write_bytes(b"")
    return folder


def test_the_samples_have_their_labels(beit: Beit) -> None:
    process = beit("classify", SAMPLES, "-m", "demo", "--format", "jsonl")
    assert best(process.stdout) == SAMPLE_LABELS
    assert b"the demo model" in process.stderr


@pytest.mark.parametrize("text_format", ["csv", "tsv", "jsonl"])
def test_formats_agree(beit: Beit, text_format: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{text_format}"
    assert beit("batch", SAMPLES, *DEMO, "--out", out, "-k", 2).returncode == 0
    reference = rows(beit("batch", SAMPLES, *DEMO, "-k", 2, "--format", "jsonl").stdout)
    expected = [
        (row["source"], row["predictions"][1]["label"], repr(row["predictions"][1]["score"])) for row in reference
    ]
    if text_format == "jsonl":
        assert rows(out.read_bytes()) == reference
    else:
        table = csv.DictReader(io.StringIO(out.read_text()), delimiter="," if text_format == "csv" else "\t")
        assert [(row["source"], row["label_2"], row["score_2"]) for row in table] == expected


@pytest.mark.parametrize("count", [2, 0])
def test_parquet_agrees(beit: Beit, tmp_path: Path, count: int) -> None:
    assert beit("batch", SAMPLES, *DEMO, "--out", "out.parquet", "-k", count).returncode == 0
    reference = rows(beit("batch", SAMPLES, *DEMO, "-k", count, "--format", "jsonl").stdout)
    table = parquet.ParquetFile(tmp_path / "out.parquet").read().to_pylist()
    assert [row["source"] for row in table] == [row["source"] for row in reference]
    for mine, theirs in zip(table, reference, strict=True):
        assert len(mine["predictions"]) == (count or 10)
        assert [{**s, "score": float(str(np.float32(s["score"])))} for s in mine["predictions"]] == theirs[
            "predictions"
        ]


@pytest.mark.parametrize(("name", "arguments"), [("out.csv.gz", ()), ("out.gz", ("--format", "jsonl"))])
def test_a_suffix_compresses(beit: Beit, tmp_path: Path, name: str, arguments: tuple[str, ...]) -> None:
    assert beit("batch", SAMPLES, *DEMO, *arguments, "--out", name).returncode == 0
    assert gzip.decompress((tmp_path / name).read_bytes()) == beit("batch", SAMPLES, *DEMO, *arguments).stdout


@pytest.mark.slow
def test_bytes_depend_on_no_worker_neighbour_or_order(beit: Beit, images: Path, tmp_path: Path) -> None:
    arguments = ("batch", *DEMO, "--format", "jsonl", "-b", 4)
    whole = beit(*arguments, "-j", 2, images).stdout.splitlines()
    assert len(whole) == 31
    assert beit(*arguments, "-j", 0, images).stdout.splitlines() == whole
    assert beit(*arguments, "-j", 1, images / "*.png", images / "31.jpg").stdout.splitlines() == [
        line for line in whole if b"/sub/" not in line
    ]
    shutil.copy(images / "31.jpg", images / "10.png")
    broken = beit(*arguments, images).stdout.splitlines()
    assert [line for line in broken if b"/10.png" not in line] == [line for line in whole if b"/10.png" not in line]
    listing = "".join(f"{json.loads(line)['source']}\n" for line in reversed(broken))
    backwards = beit(*arguments, "--files-from", "-", input=listing.encode()).stdout.splitlines()
    assert backwards[::-1] == broken


def test_classify_gives_what_batch_gives(beit: Beit, images: Path) -> None:
    one, other = (rows(beit(command, *DEMO, "--format", "jsonl", images).stdout) for command in ("classify", "batch"))
    assert [row["source"] for row in one] == [row["source"] for row in other]
    scores = [[[s["score"] for s in row.get("predictions", ())] for row in run] for run in (one, other)]
    for mine, theirs in zip(*scores, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


NAMES = [b" leading", b"new\nline", b"-dash", b"[red]x", b"caf\xe9", b"tab\there", b"*", b'a,b"c', b"\x1b[31m"]


def test_a_nul_list_takes_any_name(beit: Beit, tmp_path: Path) -> None:
    for name in NAMES:
        shutil.copy(os.fsencode(SAMPLES / "cat.jpg"), os.fsencode(tmp_path) + b"/" + name)
    process = beit("classify", *DEMO, "--format", "jsonl", "--files-from", "-", "-0", input=b"\0".join(NAMES))
    assert process.returncode == 0, process.stderr
    expected = [name.decode("utf-8", "backslashreplace") for name in NAMES]
    assert [row["source"] for row in rows(process.stdout)] == expected
    assert {row["predictions"][0]["label"] for row in rows(process.stdout)} == {"cat"}


def test_names_with_dashes_and_brackets_are_typed(beit: Beit, tmp_path: Path) -> None:
    names = [b"-dash", b"[red]x", b"caf\xe9"]
    for name in names:
        shutil.copy(os.fsencode(SAMPLES / "cat.jpg"), os.fsencode(tmp_path) + b"/" + name)
    arguments = [os.fsdecode(name) for name in names]
    process = beit("classify", *DEMO, "--format", "jsonl", "--", *arguments)
    assert len(rows(process.stdout)) == 3, process.stderr


def test_one_image_on_standard_input(beit: Beit) -> None:
    process = beit("classify", "-", *DEMO, "--format", "jsonl", input=(SAMPLES / "cat.jpg").read_bytes())
    assert best(process.stdout) == {"-": "cat"}
    assert beit("classify", "-", *DEMO, input=b"").returncode == 3


def test_every_label_and_their_sum(beit: Beit) -> None:
    process = beit("classify", SAMPLES, *DEMO, "-k", 0, "--format", "jsonl")
    for row in rows(process.stdout):
        scores = [prediction["score"] for prediction in row["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-3)
        assert len(scores) == 10


def test_more_labels_than_there_are(beit: Beit) -> None:
    header = beit("classify", SAMPLES, *DEMO, "-k", 50).stdout.splitlines()[0]
    assert header.endswith(b"label_10,index_10,score_10,error_code,error_message")


def test_selection_acts_on_rows_and_failures_stay(beit: Beit, images: Path) -> None:
    shutil.copy(SAMPLES / "cat.jpg", images)
    process = beit("batch", images, *DEMO, "--label", "cat", "--threshold", 0.4, "--format", "jsonl")
    found = rows(process.stdout)
    assert [row["status"] for row in found].count("error") == 4
    assert {"cat"} == {row["predictions"][0]["label"] for row in found if row.get("predictions")}
    assert b"32 images: 0 kept, 28 decoded, 0 reused, 4 failed" in process.stderr


@pytest.mark.parametrize("options", [["--fast-decode"], ["--preprocess", "paper"], ["--image-size", 64], ["-b", 1]])
def test_options_that_keep_the_cat_a_cat(beit: Beit, options: list[object]) -> None:
    process = beit("classify", SAMPLES / "cat.jpg", "-m", "demo", "--format", "jsonl", *options)
    assert process.returncode == 0, process.stderr
    assert best(process.stdout) == {"cat.jpg": "cat"}


def test_limits(beit: Beit) -> None:
    process = beit("classify", SAMPLES / "cat.jpg", *DEMO, "--max-pixels", 1000, "--format", "jsonl")
    assert rows(process.stdout)[0]["error"]["code"] == "too_large"
    assert process.returncode == 3


def test_decoders_print_nothing(beit: Beit, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[8:40] = os.urandom(32)
    (tmp_path / "a.tif").write_bytes(data)
    for workers in (0, 1):
        process = beit("classify", tmp_path / "a.tif", *DEMO, "-j", workers)
        assert {line.partition(":")[0] for line in process.stderr.decode().splitlines()} <= {
            "beit",
            "1 images",
            "failed",
            line_with_rate(process.stderr),
        }


def line_with_rate(stderr: bytes) -> str:
    return stderr.decode().splitlines()[-1].partition(":")[0]


@pytest.fixture
def server() -> Iterator[str]:
    class Samples(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(SAMPLES))

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Samples) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_urls_among_files_stay_in_their_place(beit: Beit, server: str) -> None:
    inputs = [f"{server}/cat.jpg", str(SAMPLES / "boats.jpg"), f"{server}/missing.jpg", f"{server}/coffee.jpg"]
    process = beit("classify", *inputs, *DEMO, "--format", "jsonl")
    found = rows(process.stdout)
    assert [row["source"] for row in found] == inputs
    results = [row["predictions"][0]["label"] if "predictions" in row else row["error"]["code"] for row in found]
    assert results == ["cat", "ship", "http_404", "automobile"]
    assert process.returncode == 3


def test_an_out_file_is_whole_or_not_there(beit: Beit, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("before")
    assert beit("batch", SAMPLES, "-m", "./nowhere", "--out", "out.csv").returncode == 1
    assert (tmp_path / "out.csv").read_text() == "before"
    assert beit("batch", SAMPLES, *DEMO, "--out", "out.csv").returncode == 0
    assert (tmp_path / "out.csv").read_text().startswith("source,status")
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.csv.edited", "out.csv.ledger"]


def test_a_full_disk_is_one_error(beit: Beit) -> None:
    with open("/dev/full", "wb") as full:
        process = beit("classify", SAMPLES, *DEMO, "-q", stdout=full)
    assert process.returncode == 1
    assert process.stderr.decode().splitlines() == [
        "beit: error: cannot write the records: No space left on device",
        "hint: make room, then run it again",
    ]


def test_a_full_disk_is_one_error_in_parquet_too(beit: Beit) -> None:
    process = beit("batch", SAMPLES, *DEMO, "-q", "--format", "parquet", "--out", "/dev/full")
    assert process.returncode == 1
    assert process.stderr.decode().splitlines() == [
        "beit: error: cannot write the records: No space left on device",
        "hint: make room, then run it again",
    ]


def on_terminal(*arguments: str) -> str:
    """Output of a run on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "beitcli", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        try:
            while block := os.read(ours, 65536):
                seen += block
        except OSError:  # Linux reports a closed terminal this way
            pass
        process.wait()
    os.close(ours)
    return seen.decode()


def test_a_person_sees_a_table() -> None:
    text = on_terminal("classify", str(SAMPLES / "cat.jpg"), "-m", "demo")
    assert "█" in text
    assert "\x1b[" not in text


@pytest.mark.slow
def test_a_person_sees_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in on_terminal("classify", str(SAMPLES / "cat.jpg"), "-m", "demo")
    assert "\x1b[" not in on_terminal("classify", str(SAMPLES / "cat.jpg"), "-m", "demo", "--color", "never")


@pytest.mark.slow
def test_every_locale_will_do(beit: Beit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    shutil.copy(SAMPLES / "cat.jpg", tmp_path / "Katze-日本.jpg")
    process = beit("classify", tmp_path, *DEMO, "--format", "jsonl")
    assert process.returncode == 0, process.stderr
    assert "Katze-日本.jpg" in process.stdout.decode()


def test_a_stream_needs_no_suffix(beit: Beit) -> None:
    """A descriptor or FIFO gets what standard output gets."""
    command = ("batch", SAMPLES, *DEMO, "-q", "-k", "1")
    expected = beit(*command)
    assert beit(*command, "--out", "/dev/stdout").stdout == expected.stdout
    assert expected.stdout.startswith(b"source,status,")
