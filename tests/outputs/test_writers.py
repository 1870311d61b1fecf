"""Records -> bytes: the same records give the same bytes, compressed or not, in any number of calls."""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from beitcli.errors import OutputError
from beitcli.outputs.destination import replaced_file, stream_to
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Prediction, Record, Score, Source

TEXT_FORMATS = ["csv", "tsv", "jsonl"]


def record(number: int) -> Record:
    if number % 7 == 3:
        return Failure(Source(f"{number:05}.jpg"), "truncated", "the image ends too early")
    scores = (Score("tabby, tabby cat", number, 0.75), Score("dog", 2, 0.125))[: number % 3]
    return Prediction(Source(f"{number:05}.jpg"), scores)


RECORDS = [record(number) for number in range(1000)]


def written(layout: Layout, *pieces: list[Record]) -> bytes:
    stream = io.BytesIO()
    with writer(stream, layout) as rows:
        for piece in pieces:
            rows.write(piece)
    return stream.getvalue()


def cut(size: int) -> Iterator[list[Record]]:
    return (RECORDS[start : start + size] for start in range(0, len(RECORDS), size))


@pytest.mark.parametrize("text_format", TEXT_FORMATS)
def test_gzip_holds_what_the_plain_file_holds(text_format: str) -> None:
    plain = written(Layout(text_format, 2), RECORDS)
    compressed = written(Layout(text_format, 2, gzip=True), RECORDS)
    assert gzip.decompress(compressed) == plain
    assert len(compressed) < len(plain) / 4


@pytest.mark.parametrize("text_format", TEXT_FORMATS)
def test_gzip_has_neither_name_nor_time(text_format: str, tmp_path: Path) -> None:
    path = tmp_path / "out.gz"
    with replaced_file(str(path), keeps_part=True) as stream, writer(stream, Layout(text_format, 2, gzip=True)) as rows:
        rows.write(RECORDS)
    magic, method, flags, time = (path.read_bytes()[start:end] for start, end in ((0, 2), (2, 3), (3, 4), (4, 8)))
    assert (magic, method, flags, time) == (b"\x1f\x8b", b"\x08", b"\0", b"\0\0\0\0")
    assert path.read_bytes() == written(Layout(text_format, 2, gzip=True), RECORDS)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("text_format", TEXT_FORMATS)
def test_bytes_do_not_depend_on_the_calls(text_format: str, compressed: bool) -> None:
    layout = Layout(text_format, 2, compressed)
    assert written(layout, *cut(1)) == written(layout, *cut(64)) == written(layout, RECORDS)


@pytest.mark.parametrize("text_format", TEXT_FORMATS)
def test_a_gzip_stream_that_cannot_be_ended_is_one_error(text_format: str) -> None:
    layout = Layout(text_format, 2, gzip=True)
    with (
        pytest.raises(OutputError, match="No space left"),
        stream_to("/dev/full") as stream,
        writer(stream, layout) as rows,
    ):
        rows.write(RECORDS)


def test_a_leftover_gzip_part_can_be_read(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        replaced_file(str(tmp_path / "out.gz"), keeps_part=True) as stream,
        writer(stream, Layout("jsonl", 2, gzip=True)) as rows,
    ):
        rows.write(RECORDS)
        raise ZeroDivisionError
    assert gzip.decompress((tmp_path / "out.gz.part").read_bytes()) == written(Layout("jsonl", 2), RECORDS)
