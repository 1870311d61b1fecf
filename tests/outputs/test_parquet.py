"""Parquet: typed columns, groups of bounded size, and a footer in every case."""

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import parquet

from beitcli.errors import OutputError
from beitcli.outputs.destination import ReaderClosed, replaced_file, stream_to, writing
from beitcli.outputs.parquet import MOST_ROWS, MOST_SCORES, schema
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Prediction, Record, Score, Source

PARQUET = Layout("parquet", 0)
RECORDS: list[Record] = [
    Prediction(Source("a/b.jpg"), (Score("tabby, tabby cat", 281, 0.8132), Score("\ud800", 282, 1e-07))),
    Failure(Source(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")), "truncated", "ends early"),
    Prediction(Source("new\nline"), ()),
]


def written(*pieces: list[Record]) -> bytes:
    stream = io.BytesIO()
    with writer(stream, PARQUET) as rows:
        for piece in pieces:
            rows.write(piece)
    return stream.getvalue()


def group_sizes(data: bytes) -> list[int]:
    metadata = parquet.ParquetFile(io.BytesIO(data)).metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def long_rows(count: int, scores: int) -> list[Record]:
    row = tuple(Score(f"label {index}", index, 1 / (index + 2)) for index in range(scores))
    return [Prediction(Source(f"{number}.jpg"), row) for number in range(count)]


def test_columns_and_their_values() -> None:
    table = parquet.ParquetFile(io.BytesIO(written(RECORDS))).read()
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("source", "string"),
        ("status", "string"),
        ("predictions", "list<element: struct<label: string, index: int32, score: float>>"),
        ("error_code", "string"),
        ("error_message", "string"),
    ]
    one, error, none = table.to_pylist()
    assert one["source"] == "a/b.jpg"
    assert [(score["label"], score["index"]) for score in one["predictions"]] == [
        ("tabby, tabby cat", 281),
        ("\\ud800", 282),
    ]
    assert [score["score"] for score in one["predictions"]] == pytest.approx([0.8132, 1e-07])
    assert (one["error_code"], one["error_message"]) == (None, None)
    assert error == {
        "source": "caf\\xe9.jpg",
        "status": "error",
        "predictions": None,
        "error_code": "truncated",
        "error_message": "ends early",
    }
    assert none["predictions"] == []


def test_it_is_compressed() -> None:
    metadata = parquet.ParquetFile(io.BytesIO(written(RECORDS))).metadata
    assert {metadata.row_group(0).column(number).compression for number in range(metadata.num_columns)} == {"ZSTD"}


def test_without_records_there_are_columns() -> None:
    table = parquet.ParquetFile(io.BytesIO(written([]))).read()
    assert table.num_rows == 0
    assert table.schema.equals(schema())


@pytest.mark.parametrize(
    ("records", "sizes"),
    [
        (long_rows(2 * MOST_ROWS + 5, 1), [MOST_ROWS, MOST_ROWS, 5]),
        (long_rows(MOST_ROWS, 0), [MOST_ROWS]),
        (long_rows(250, MOST_SCORES // 100), [100, 100, 50]),
        (long_rows(2, MOST_SCORES + 1), [1, 1]),
    ],
    ids=["rows", "just full", "scores", "one row"],
)
def test_groups_are_cut_by_rows_and_scores_but_not_by_calls(records: list[Record], sizes: list[int]) -> None:
    whole = written(records)
    assert group_sizes(whole) == sizes
    pieces: Iterator[list[Record]] = (records[start : start + 64] for start in range(0, len(records), 64))
    assert written(*pieces) == whole


def test_a_leftover_part_can_be_read(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        replaced_file(str(tmp_path / "out.parquet"), keeps_part=True) as stream,
        writer(stream, PARQUET) as rows,
    ):
        rows.write(RECORDS)
        raise ZeroDivisionError
    assert (tmp_path / "out.parquet.part").read_bytes() == written(RECORDS)


@pytest.mark.parametrize("records", [RECORDS, long_rows(2 * MOST_ROWS, 1)], ids=["at the end", "on the way"])
def test_a_full_disk_is_one_error(records: list[Record]) -> None:
    with (
        pytest.raises(OutputError, match="No space left") as caught,
        stream_to("/dev/full") as stream,
        writer(stream, PARQUET) as rows,
        writing(),
    ):
        rows.write(records)
    assert caught.value.hint is not None


def test_a_fifo_gets_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with stream_to(str(path)) as stream, writer(stream, PARQUET) as rows:
        rows.write(RECORDS)
    reader.join()
    assert read == [written(RECORDS)]


def test_a_closed_reader_is_no_error() -> None:
    ours, theirs = os.pipe()
    with pytest.raises(ReaderClosed), stream_to(f"/dev/fd/{theirs}") as stream, writer(stream, PARQUET) as rows:
        os.close(ours)
        rows.write(RECORDS)
    os.close(theirs)
