"""`beit merge` as a real process: the merged parts of a run equal the whole run, byte for byte."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Prediction, Record, Score, Source
from tests.conftest import SAMPLES

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]
DEMO = ("-m", "demo", "--dtype", "fp32", "-q", "-k", 3)
SUFFIXES = ["csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.gz", "jsonl.gz"]

CAT = Prediction(Source("b/cat.jpg"), (Score("cat", 3, 0.5), Score("dog", 5, 0.25)))
DOG = Prediction(Source("a.jpg"), (Score("dog", 5, 0.75),))
GONE = Failure(Source("a.jpg"), "io_error", "a share that went away")


def write(path: Path, *records: Record, columns: int = 2) -> Path:
    name, _, gzip = path.name.partition(".")[2].partition(".")
    with path.open("wb") as stream, writer(stream, Layout(name, columns, bool(gzip))) as rows:
        rows.write(records)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_the_parts_of_a_run_are_the_run(beit: Beit, tmp_path: Path, suffix: str) -> None:
    sources = ["in/boats.jpg", "in/cat/a\tb\\,cat.jpg", "in/cat/gone.png", "in/cat.jpg", "in/coffee.jpg"]
    for source in sources:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if "gone" in source:
            (tmp_path / source).touch()
        else:
            shutil.copy(SAMPLES / source.rpartition("/")[2].rpartition(",")[2], tmp_path / source)
    assert beit("batch", "in", *DEMO, "--out", f"whole.{suffix}").returncode == 3
    for number in range(2):
        (tmp_path / "list").write_text("\n".join(sources[number::2]))
        beit("batch", "--files-from", "list", *DEMO, "--out", f"part-{number}.{suffix}")
    process = beit("merge", f"merged.{suffix}", f"part-1.{suffix}", f"part-0.{suffix}")
    assert (process.returncode, process.stdout) == (0, b"")
    assert process.stderr == b"5 images from 2 parts: 0 equal rows left out, 0 errors replaced, 1 failed\n"
    assert (tmp_path / f"merged.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


def test_formats_mix_and_equal_rows_are_one(beit: Beit, tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{number}.{suffix}", CAT, DOG) for number, suffix in enumerate(SUFFIXES)]
    for suffix in SUFFIXES:
        process = beit("merge", f"all.{suffix}", *parts)
        assert process.returncode == 0, process.stderr
        assert process.stderr == b"2 images from 7 parts: 12 equal rows left out, 0 errors replaced, 0 failed\n"
        expected = write(tmp_path / f"expected.{suffix}", DOG, CAT)
        assert (tmp_path / f"all.{suffix}").read_bytes() == expected.read_bytes()


def test_a_single_file_is_converted_in_its_own_order(beit: Beit, tmp_path: Path) -> None:
    process = beit("merge", "out.csv", write(tmp_path / "in.parquet", CAT, GONE))
    assert (process.returncode, process.stdout) == (0, b"")
    assert process.stderr == b"2 images converted, 1 failed\n"
    assert (tmp_path / "out.csv").read_bytes() == write(tmp_path / "expected.csv", CAT, GONE).read_bytes()


def test_a_byte_order_mark_for_excel(beit: Beit, tmp_path: Path) -> None:
    assert beit("merge", "all.csv", write(tmp_path / "part.jsonl", CAT), "--bom").returncode == 0
    assert (tmp_path / "all.csv").read_bytes() == b"\xef\xbb\xbf" + write(tmp_path / "plain.csv", CAT).read_bytes()
    assert beit("merge", "again.csv", "all.csv").returncode == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()


def test_rows_have_room_for_the_widest_part(beit: Beit, tmp_path: Path) -> None:
    narrow, wide = write(tmp_path / "narrow.jsonl", CAT), write(tmp_path / "wide.csv", DOG, columns=3)
    assert beit("merge", "all.tsv", narrow, wide).returncode == 0
    assert "\tscore_3\terror_code\t" in (tmp_path / "all.tsv").read_text().splitlines()[0]


def test_a_second_try_mends_the_first_in_its_place(beit: Beit, tmp_path: Path) -> None:
    first, again = write(tmp_path / "first.jsonl", GONE, CAT), write(tmp_path / "again.csv", DOG)
    process = beit("merge", first, first, again)
    assert process.stderr == b"2 images from 2 parts: 0 equal rows left out, 1 errors replaced, 0 failed\n"
    assert [row["status"] for row in rows(first)] == ["ok", "ok"]
    assert sorted(os.listdir(tmp_path)) == ["again.csv", "first.jsonl"]


def test_rows_that_are_errors_are_well_merged(beit: Beit, tmp_path: Path) -> None:
    process = beit("merge", "all.jsonl", write(tmp_path / "part.csv", GONE), "-q")
    assert (process.returncode, process.stderr) == (0, b"")
    assert rows(tmp_path / "all.jsonl")[0]["error"]["code"] == "io_error"


def test_two_predictions_for_one_image_are_an_error_and_nothing_is_written(beit: Beit, tmp_path: Path) -> None:
    other = Prediction(DOG.source, (Score("dog", 5, 0.7500001),))
    parts = [write(tmp_path / "one.csv", CAT, DOG), write(tmp_path / "two.parquet", other)]
    (tmp_path / "all.csv").write_text("before")
    process = beit("merge", "all.csv", *parts)
    assert process.returncode == 1
    assert process.stderr.decode().splitlines()[0] == (
        f"beit: error: different predictions for `a.jpg` in `{parts[0]}` and `{parts[1]}`"
    )
    assert (tmp_path / "all.csv").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["all.csv", "one.csv", "two.parquet"]


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("merge", 2, "Missing argument"),
        ("merge all.csv", 2, "Missing argument"),
        ("merge all.csv missing.csv", 2, "`missing.csv` does not exist"),
        ("merge all.csv folder", 2, "`folder` is no file"),
        ("merge all.csv part.csv.part", 2, "`part.csv.part`: no format has the suffix `.part`"),
        ("merge all part.csv", 2, "`all`: no suffix names its format"),
        ("merge - part.csv", 2, "`-`: no suffix names its format"),
        ("merge all.parquet.gz part.csv", 2, "compressed already"),
        ("merge pipe.csv part.csv", 2, "`pipe.csv` is a FIFO or device"),
        ("merge nowhere/all.csv part.csv", 1, "does not exist"),
        ("merge all.csv part.csv broken.csv", 1, "`broken.csv`, line 3: the file ends within the line"),
        ("merge all.csv broken.parquet", 1, "cannot read `broken.parquet`"),
    ],
)
def test_what_cannot_be_merged(beit: Beit, tmp_path: Path, line: str, status: int, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    text = write(tmp_path / "part.csv", CAT, DOG).read_bytes()
    (tmp_path / "part.csv.part").write_bytes(text)
    (tmp_path / "broken.csv").write_bytes(text[:-1])
    (tmp_path / "broken.parquet").write_bytes(text)
    before = sorted(os.listdir(tmp_path))
    process = beit(*line.split())
    assert process.returncode == status, process.stderr
    assert message in process.stderr.decode().splitlines()[0]
    assert b"Traceback" not in process.stderr
    assert sorted(os.listdir(tmp_path)) == before
