"""CSV, TSV and JSON lines: hand-written goldens for hand-made records."""

import csv
import io
import json
from typing import Any

import pytest

from beitcli.outputs.delimited import CsvWriter, TsvWriter
from beitcli.outputs.jsonl import JsonlWriter
from beitcli.records import Failure, Prediction, Record, Score, Source

RECORDS: list[Record] = [
    Prediction(Source("a/b.jpg"), (Score("tabby, tabby cat", 281, 0.8132), Score("tiger cat", 282, 1e-07))),
    Failure(Source('say "x".jpg'), "truncated", "image file is truncated"),
    Prediction(Source("tab\tnew\nline\rback\\slash"), (Score("dog", 2, 1.0),)),
    Prediction(Source(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")), ()),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(writer: Any, *arguments: Any, stream: io.StringIO | None = None, records: list[Record] = RECORDS) -> str:
    stream = stream or io.StringIO(newline="")
    writer(stream, *arguments).write(records)
    return stream.getvalue()


def test_csv() -> None:
    assert written(CsvWriter, 2) == (
        "source,status,label,index,score,label_2,index_2,score_2,error_code,error_message\n"
        'a/b.jpg,ok,"tabby, tabby cat",281,0.8132,tiger cat,282,1e-07,,\n'
        '"say ""x"".jpg",error,,,,,,,truncated,image file is truncated\n'
        '"tab\tnew\nline\rback\\slash",ok,dog,2,1.0,,,,,\n'
        "caf\\xe9.jpg,ok,,,,,,,,\n"
    )


def test_csv_is_read_back_by_the_standard_reader() -> None:
    rows = list(csv.DictReader(io.StringIO(written(CsvWriter, 2), newline="")))
    assert [row["source"] for row in rows] == [record.source.name for record in RECORDS]
    assert {len(row) for row in rows} == {10}


def test_csv_quotes_ends_of_fields_and_rows() -> None:
    names = ["a\rb", "a\nb", "a,b", '"', " a ", "a;b", "'"]
    text = written(CsvWriter, 0, records=[Failure(Source(name), "corrupt", "") for name in names])
    assert [row[0] for row in csv.reader(io.StringIO(text, newline=""), strict=True)] == ["source", *names]
    assert text.count('"') == 2 * 4 + 2


def test_tsv() -> None:
    assert written(TsvWriter, 1, records=RECORDS[1:]) == (
        "source\tstatus\tlabel\tindex\tscore\terror_code\terror_message\n"
        'say "x".jpg\terror\t\t\t\ttruncated\timage file is truncated\n'
        "tab\\tnew\\nline\\rback\\\\slash\tok\tdog\t2\t1.0\t\t\n"
        "caf\\\\xe9.jpg\tok\t\t\t\t\t\n"
    )


def test_jsonl() -> None:
    assert written(JsonlWriter).splitlines() == [
        '{"source": "a/b.jpg", "status": "ok", "predictions": [{"label": "tabby, tabby cat", "index": 281, '
        '"score": 0.8132}, {"label": "tiger cat", "index": 282, "score": 1e-07}]}',
        '{"source": "say \\"x\\".jpg", "status": "error", '
        '"error": {"code": "truncated", "message": "image file is truncated"}}',
        '{"source": "tab\\tnew\\nline\\rback\\\\slash", "status": "ok", '
        '"predictions": [{"label": "dog", "index": 2, "score": 1.0}]}',
        '{"source": "caf\\\\xe9.jpg", "status": "ok", "predictions": []}',
    ]


def test_scores_read_the_same_in_csv_and_jsonl() -> None:
    score = json.loads(written(JsonlWriter).splitlines()[0])["predictions"][1]["score"]
    assert repr(score) in written(CsvWriter, 2)


@pytest.mark.parametrize(
    ("writer", "arguments", "lines"), [(CsvWriter, (5,), 1), (TsvWriter, (5,), 1), (JsonlWriter, (), 0)]
)
def test_without_records_there_is_a_header_and_no_more(writer: Any, arguments: tuple[int, ...], lines: int) -> None:
    assert written(writer, *arguments, records=[]).count("\n") == lines


@pytest.mark.parametrize(("writer", "arguments"), [(CsvWriter, (1,)), (TsvWriter, (1,)), (JsonlWriter, ())])
def test_control_characters_never_reach_a_terminal(writer: Any, arguments: tuple[int, ...]) -> None:
    evil = Source("\x1b[31m\x07\x9b\u202ejpg.exe\x7f")
    records: list[Record] = [Prediction(evil, (Score("\x1b]0;owned\x07", 0, 0.5),)), Failure(evil, "corrupt", "\x1bc")]
    text = written(writer, *arguments, stream=Terminal(newline=""), records=records)
    assert all(character.isprintable() or character in "\n\t" for character in text)


def test_rows_are_flushed_with_each_call(tmp_path: Any) -> None:
    path = tmp_path / "out.csv"
    with path.open("w", newline="") as stream:
        CsvWriter(stream, 2).write(RECORDS[:1])
        assert path.read_text().endswith('a/b.jpg,ok,"tabby, tabby cat",281,0.8132,tiger cat,282,1e-07,,\n')
