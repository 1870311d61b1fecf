"""Merging and conversion of files of features, and conversion of a single file of records."""

import itertools
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from beitcli.errors import BeitError, UsageError
from beitcli.jobs.merge import Merged, merge
from beitcli.jobs.observer import Silent
from beitcli.outputs.feature_files import Encoded, FeatureFile
from beitcli.outputs.provenance import Provenance
from beitcli.outputs.readers import RecordReader
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Embedding, Failure, Prediction, Record, Score, Source

SUFFIXES = ("npy", "npz", "parquet")
SHAPES = [((4,), "float32"), ((3, 4), "float16")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def image(name: str, shape: tuple[int, ...] = (4,), dtype: str = "float32") -> Embedding:
    """Features that the name determines."""
    random = np.random.default_rng(zlib.crc32(os.fsencode(name)))
    return Embedding(Source(name), random.standard_normal(shape).astype(dtype))


def failed(name: str, code: str = "corrupt") -> Failure:
    return Failure(Source(name), code, 'a "damaged", image')


def write(
    name: str,
    records: Sequence[Encoded],
    shape: tuple[int, ...] = (4,),
    dtype: str = "float32",
    model: Provenance | None = None,
) -> str:
    count = sum(isinstance(record, Embedding) for record in records)
    FeatureFile(name, shape, dtype).write(count, iter([list(records)]), model)
    return name


def content(name: str) -> dict[str, bytes]:
    return {path: Path(path).read_bytes() for path in (name, f"{name}.index.csv") if os.path.exists(path)}


def done(out: str, *parts: str) -> Merged:
    return merge(out, list(parts), Silent())


# Features


@pytest.mark.parametrize(("shape", "dtype"), SHAPES)
@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(SUFFIXES, 2)))
def test_features_convert_to_the_bytes_of_the_other_format(
    before: str, after: str, shape: tuple[int, ...], dtype: str
) -> None:
    names = ["z", os.fsdecode(b"caf\xe9"), "a,b", "line\nend", "z"]
    records: list[Encoded] = [*(image(name, shape, dtype) for name in names), failed("gone")]
    source = write(f"in.{before}", records, shape, dtype)
    expected = content(write(f"out.{after}", records, shape, dtype))
    Path(f"out.{after}").write_text("before")
    assert done(f"out.{after}", source).tally.images == 6
    assert content(f"out.{after}") == expected
    assert not [name for name in os.listdir() if name.endswith((".part", ".lock"))]


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_failures_between_features_keep_their_place(suffix: str) -> None:
    records: list[Encoded] = [failed("a"), image("b"), failed("c"), image("d")]
    write(f"in.{suffix}", records)
    other = {"npy": "parquet", "parquet": "npy"}[suffix]
    expected = content(write(f"out.{other}", records))
    done(f"out.{other}", f"in.{suffix}")
    assert content(f"out.{other}") == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_of_features_are_the_whole(suffix: str) -> None:
    names = ["a", "a/b", "b.jpg", "c"]
    parts = [
        write("one.npy", [image("c"), image("a/b"), failed("b.jpg", "network")]),
        write("two.npz", [image("b.jpg"), image("a")]),
        write("three.parquet", [image("a"), failed("d"), failed("c")]),
    ]
    expected = content(write(f"all.{suffix}", [*map(image, names), failed("d")]))
    merged = done(f"all.{suffix}", *parts)
    assert content(f"all.{suffix}") == expected
    assert (merged.tally.images, merged.equal, merged.overruled) == (5, 1, 2)
    assert not [name for name in os.listdir() if name.endswith((".part", ".lock"))]


def test_parts_of_features_keep_the_model_that_all_of_them_name() -> None:
    model = Provenance("demo", "0123", ("0.1.0",))
    one, two = write("1.parquet", [image("a")], model=model), write("2.parquet", [image("b"), failed("c")], model=model)
    done("all.parquet", one, two)
    whole: list[Encoded] = [image("a"), image("b"), failed("c")]
    assert content("all.parquet") == content(write("all.parquet", whole, model=model))
    done("all.parquet", one, write("2.npy", [image("b"), failed("c")]))
    assert content("all.parquet") == content(write("all.parquet", whole))


def test_a_part_may_be_the_output_and_have_no_images() -> None:
    write("a.npy", [image("b")])
    done("a.npy", "a.npy", write("empty.npz", []), write("c.parquet", [image("a")]))
    np.testing.assert_array_equal(np.load("a.npy"), [image("a").features, image("b").features])


def records_beside() -> str:
    with open("rows.csv", "wb") as stream, writer(stream, Layout("csv", 1)) as rows:
        rows.write([Prediction(Source("a"), (Score("cat", 3, 0.5),))])
    return "rows.csv"


def other_than(record: Embedding) -> Embedding:
    return Embedding(record.source, record.features + 1)


def cut(name: str) -> str:
    os.truncate(name, os.path.getsize(name) - 5)
    return name


def without_index() -> str:
    os.unlink("a.npy.index.csv")
    return "a.npy"


def with_another_index() -> str:
    Path("a.npy.index.csv").write_text("row,source,status,error_code,error_message\n1,a,ok,,\n")
    return "a.npy"


def with_a_shorter_index() -> str:
    Path("a.npy.index.csv").write_text("row,source,status,error_code,error_message\n")
    return "a.npy"


def of_numbers() -> str:
    np.save("a.npy", np.arange(3))
    return "a.npy"


@pytest.mark.parametrize(
    ("out", "parts", "error", "message"),
    [
        ("out.csv", ["a.npy"], UsageError, "`a.npy` holds features"),
        ("out.npy", [records_beside], UsageError, "`out.npy` holds features, and `rows.csv` records"),
        ("out.npy", ["a.npy", records_beside], UsageError, "`a.npy` holds features and `rows.csv` records"),
        ("out.npy", ["a.npy", lambda: write("b.npz", [image("b", (5,))], (5,))], BeitError, "features of 4 float32 in"),
        ("out.npy", ["a.npy", lambda: write("b.npz", [other_than(image("a"))])], BeitError, "different feat"),
        ("out.npz", [lambda: cut("a.npy")], BeitError, "cannot read `a.npy`: the array ends too early"),
        ("out.npy", [lambda: cut(write("b.npz", [image("b")]))], BeitError, "cannot read `b.npz`"),
        ("out.npy", [lambda: cut(write("b.parquet", [image("b")]))], BeitError, "cannot read `b.parquet`"),
        ("out.npz", [without_index], BeitError, "cannot read `a.npy.index.csv`: No such file"),
        ("out.npz", [with_another_index], BeitError, "its index names row 1 where 0 follows"),
        ("out.npz", [with_a_shorter_index], BeitError, "0 names for 1 rows"),
        ("out.npz", [of_numbers], BeitError, "holds no features"),
        ("out.npz", ["missing.npy"], UsageError, "does not exist"),
    ],
)  # fmt: skip
def test_parts_that_make_no_file_of_features(
    out: str, parts: Sequence[object], error: type[Exception], message: str
) -> None:
    write("a.npy", [image("a")])
    named = [part() if callable(part) else str(part) for part in parts]
    before = sorted(os.listdir())
    with pytest.raises(error, match=message):
        done(out, *named)
    assert sorted(os.listdir()) == before


# Records


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_a_single_file_of_records_keeps_its_order(suffix: str) -> None:
    scores = (Score("cat", 3, 0.5), Score("dog", 5, 0.25))
    records: list[Record] = [
        Prediction(Source("z"), scores),
        failed("b"),
        Prediction(Source("a"), scores[:1]),
        failed("b"),
    ]
    for name in ("in.jsonl", f"expected.{suffix}"):
        format_name, _, gzip = name.partition(".")[2].partition(".")
        with open(name, "wb") as stream, writer(stream, Layout(format_name, 2, bool(gzip))) as rows:
            rows.write(records)
    merged = done(f"out.{suffix}", "in.jsonl")
    assert (merged.tally.images, merged.tally.failed.total()) == (4, 2)
    assert Path(f"out.{suffix}").read_bytes() == Path(f"expected.{suffix}").read_bytes()
    done("back.jsonl", f"out.{suffix}")
    assert list(RecordReader("back.jsonl", "jsonl", False).records()) == records
