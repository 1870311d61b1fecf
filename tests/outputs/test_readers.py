"""Files of records are read back exactly; others are refused, by file and line."""

import gzip
import itertools
import os
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from beitcli.errors import BeitError
from beitcli.outputs.parquet import schema
from beitcli.outputs.provenance import Provenance, common
from beitcli.outputs.readers import RecordReader
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Prediction, Record, Score, Source
from tests.conftest import unprivileged

RECORDS: list[Record] = [
    Prediction(Source("a/b.jpg"), (Score("tabby, tabby cat", 281, 0.8132), Score('"x"\\t\t', 282, 1e-07))),
    Failure(Source('say "x".jpg'), "truncated", "a,b\r"),
    Prediction(Source("tab\tnew\nline\rback\\slash\\n"), (Score("dog", 2**31 - 1, 1.0),)),
    Prediction(Source(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")), ()),
    Failure(Source("\u2028\x85\x0c\x1c.jpg"), "http_404", ""),
    Prediction(Source("日本.jpg"), (Score("", 0, 0.0), Score("third", 3, 0.33333334))),
]
FILES = [(name, False) for name in ("csv", "tsv", "jsonl", "parquet")] + [
    (name, True) for name in ("csv", "tsv", "jsonl")
]


def write(
    path: Path,
    file_format: str,
    compressed: bool,
    columns: int = 2,
    records: list[Record] = RECORDS,
    bom: bool = False,
) -> Path:
    with path.open("wb") as stream, writer(stream, Layout(file_format, columns, compressed, bom=bom)) as rows:
        rows.write(records)
    return path


@pytest.mark.parametrize(("file_format", "compressed"), FILES)
def test_records_are_read_back(tmp_path: Path, file_format: str, compressed: bool) -> None:
    path = write(tmp_path / "part", file_format, compressed)
    assert list(RecordReader(str(path), file_format, compressed).records()) == RECORDS


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("file_format", ["csv", "tsv"])
def test_a_byte_order_mark_is_no_part_of_the_records(tmp_path: Path, file_format: str, compressed: bool) -> None:
    path = write(tmp_path / "part", file_format, compressed, bom=True)
    content = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
    assert content == b"\xef\xbb\xbf" + write(tmp_path / "without", file_format, False).read_bytes()
    assert list(RecordReader(str(path), file_format, compressed).records()) == RECORDS


@pytest.mark.parametrize(("file_format", "compressed"), FILES)
def test_records_are_counted_without_reading_them(tmp_path: Path, file_format: str, compressed: bool) -> None:
    path = write(tmp_path / "part", file_format, compressed, records=[RECORDS[0], RECORDS[1]] * 5000)
    assert sum(RecordReader(str(path), file_format, compressed).count()) == 10_000


def test_a_file_that_ends_too_early_cannot_be_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "part", "jsonl", True, records=RECORDS * 1000)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="end"):
        sum(RecordReader(str(path), "jsonl", True).count())


@pytest.mark.parametrize(("file_format", "columns"), [("csv", 7), ("tsv", 7), ("jsonl", 2), ("parquet", 2)])
def test_columns_is_the_number_of_labels_of_a_row(tmp_path: Path, file_format: str, columns: int) -> None:
    reader = RecordReader(str(write(tmp_path / "part", file_format, False, columns=7)), file_format, False)
    list(reader.records())
    assert reader.columns == columns


@pytest.mark.parametrize(("file_format", "compressed"), FILES)
def test_a_file_without_records(tmp_path: Path, file_format: str, compressed: bool) -> None:
    path = write(tmp_path / "part", file_format, compressed, records=[])
    assert list(RecordReader(str(path), file_format, compressed).records()) == []


HEADER = "source,status,label,index,score,error_code,error_message\n"
OK = "a.jpg,ok,cat,3,0.5,,\n"
BROKEN = [
    ("csv", "", 1, "not the header"),
    ("csv", OK, 1, "not the header"),
    ("csv", "\ufeff\ufeff" + HEADER, 1, "not the header"),
    ("csv", HEADER + OK + OK[:-1], 3, "ends within the line"),
    ("csv", HEADER + '"a\nb.jpg",error,,,,io_error,\nx\n', 4, "1 fields"),
    ("csv", HEADER + OK + '"a.jpg,ok\n' + OK, 3, "unexpected end"),
    ("csv", HEADER + "\n", 2, "0 fields instead of 7"),
    ("csv", HEADER + "a.jpg,fine,cat,3,0.5,,\n", 2, "neither a prediction nor an error"),
    ("csv", HEADER + "a.jpg,ok,cat,3,0.5,corrupt,\n", 2, "neither"),
    ("csv", HEADER + "a.jpg,error,cat,3,0.5,corrupt,\n", 2, "neither"),
    ("csv", HEADER + "a.jpg,error,,,,,\n", 2, "an error that is not a code"),
    ("csv", HEADER + "a.jpg,ok,cat,-3,0.5,,\n", 2, "`-3` is no index"),
    ("csv", HEADER + "a.jpg,ok,cat,3000000000,0.5,,\n", 2, "`3000000000` is no index"),
    ("csv", HEADER + "a.jpg,ok,cat,3,much,,\n", 2, "`much` is no score"),
    ("csv", HEADER + "a.jpg,ok,cat,3,nan,,\n", 2, "`nan` is no score"),
    ("csv", HEADER + "a.jpg,ok,,3,,,\n", 2, "`` is no score"),
    ("csv", HEADER + ",ok,cat,3,0.5,,\n", 2, "`` is no source"),
    ("tsv", HEADER, 1, "not the header"),
    ("tsv", HEADER.replace(",", "\t") + OK.replace(",", "\t") + "a\\q\tok\t\t\t\t\t\n", 3, r"`\\q` is no escape"),
    ("tsv", HEADER.replace(",", "\t") + "a\\\tok\t\t\t\t\t\n", 2, r"`\\` is no escape"),
    ("tsv", HEADER.replace(",", "\t") + "a\tok\n", 2, "2 fields instead of 7"),
    ("jsonl", "\n", 1, "no JSON"),
    ("jsonl", '{"source": "a", "status": "ok", "predictions": []}\n{"source": "a"\n', 2, "no JSON: .* at column"),
    ("jsonl", "[" * 100_000 + "\n", 1, "no JSON"),
    ("jsonl", "[]\n", 1, "neither"),
    ("jsonl", '{"source": "a", "status": "ok", "predictions": [], "more": 1}\n', 1, "neither"),
    ("jsonl", '{"source": "a", "status": "ok"}\n', 1, "neither"),
    ("jsonl", '{"source": 1, "status": "ok", "predictions": []}\n', 1, "neither"),
    ("jsonl", '{"source": "a", "status": "ok", "predictions": [1]}\n', 1, "a prediction that is not"),
    (
        "jsonl",
        '{"source": "a", "status": "ok", "predictions": [{"label": "x", "index": true, "score": 0}]}\n',
        1,
        "index",
    ),
    (
        "jsonl",
        '{"source": "a", "status": "ok", "predictions": [{"label": "x", "index": 1, "score": NaN}]}\n',
        1,
        "`nan`",
    ),
    ("jsonl", '{"source": "a", "status": "error", "error": {"code": "x"}}\n', 1, "an error that is not"),
    ("jsonl", '{"source": "a\\u0000", "status": "ok", "predictions": []}\n', 1, "is no source"),
]


@pytest.mark.parametrize(("file_format", "text", "line", "message"), BROKEN, ids=itertools.count())
def test_a_broken_line_is_reported(tmp_path: Path, file_format: str, text: str, line: int, message: str) -> None:
    path = tmp_path / "part"
    path.write_bytes(text.encode())
    with pytest.raises(BeitError, match=f"`{path}`, line {line}: .*({message})"):
        list(RecordReader(str(path), file_format, False).records())


def test_invalid_text_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "part.csv"
    path.write_bytes(f"{HEADER}{OK}".encode() + b"caf\xe9,ok,,,,,\n")
    with pytest.raises(BeitError, match=r"line 3: .*utf-8"):
        list(RecordReader(str(path), "csv", False).records())


def row(**values: Any) -> dict[str, Any]:
    return {"source": "a", "status": "ok", "predictions": [], "error_code": None, "error_message": None, **values}


@pytest.mark.parametrize(
    "broken",
    [
        row(source=None),
        row(status="fine"),
        row(predictions=None),
        row(error_code="corrupt"),
        row(status="error"),
        row(status="error", predictions=None, error_code="corrupt"),
        row(predictions=[None]),
        row(predictions=[{"label": "x", "index": 1, "score": None}]),
        row(predictions=[{"label": "x", "index": 1, "score": float("nan")}]),
        row(predictions=[{"label": None, "index": 1, "score": 0.5}]),
    ],
    ids=itertools.count(),
)
def test_a_broken_row_of_parquet_is_reported(tmp_path: Path, broken: dict[str, Any]) -> None:
    path = tmp_path / "part.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row()] * 250 + [broken], schema()), path)
    with pytest.raises(BeitError, match=f"`{path}`, row 251: "):
        list(RecordReader(str(path), "parquet", False).records())


def test_parquet_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    parquet.write_table(pyarrow.table({"source": ["a"]}), path)
    with pytest.raises(BeitError, match="the columns are not those"):
        list(RecordReader(str(path), "parquet", False).records())


@pytest.mark.parametrize(("file_format", "compressed"), FILES)
def test_half_a_file_cannot_be_read(tmp_path: Path, file_format: str, compressed: bool) -> None:
    whole = write(tmp_path / "whole", file_format, compressed).read_bytes()
    path = tmp_path / "half"
    path.write_bytes(whole[:-1])
    with pytest.raises(BeitError, match=str(path)):
        list(RecordReader(str(path), file_format, compressed).records())


@pytest.mark.parametrize("data", [b"no gzip\n", gzip.compress(b"x" * 100)[:15] + b"\xff" * 20], ids=["magic", "data"])
def test_invalid_gzip_cannot_be_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "part").write_bytes(data)
    with pytest.raises(BeitError, match="cannot read"):
        list(RecordReader(str(tmp_path / "part"), "jsonl", True).records())


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_an_unreadable_file(tmp_path: Path, file_format: str) -> None:
    path = write(tmp_path / "part", file_format, False)
    os.chmod(path, 0)
    with unprivileged(), pytest.raises(BeitError, match=r"cannot read .*(Permission|denied)"):
        list(RecordReader(str(path), file_format, False).records())


def test_parquet_tells_its_model_and_parts_of_one_model_share_it(tmp_path: Path) -> None:
    def read(number: int, model: Provenance | None) -> Provenance | None:
        path = tmp_path / f"{number}.parquet"
        with path.open("wb") as stream, writer(stream, Layout("parquet", 1, provenance=model)) as rows:
            rows.write(RECORDS)
        reader = RecordReader(str(path), "parquet", False)
        assert list(reader.records()) == RECORDS
        return reader.provenance

    one, other = Provenance("demo", "1f", ("0.1.0",)), Provenance("demo", "1f", ("0.2.0",))
    parts = [read(0, one), read(1, other), read(2, Provenance("demo", "1f", ()))]
    assert common(parts) == Provenance("demo", "1f", ("0.1.0", "0.2.0"))
    assert common([*parts, read(3, None)]) is None
    assert common([*parts, read(4, Provenance("large-384", "2e", ("0.2.0",)))]) is None
