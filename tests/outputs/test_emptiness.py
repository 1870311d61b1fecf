"""Files with and without rows, of every format and of none."""

from pathlib import Path

import numpy
import pytest

from beitcli.outputs.emptiness import has_rows
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Record, Source

ROWS: list[Record] = [Failure(Source("a"), "corrupt", "")]


@pytest.mark.parametrize("rows", [ROWS, []])
@pytest.mark.parametrize(
    "layout",
    [*(Layout(name, 1, gzip) for name in ("csv", "tsv", "jsonl") for gzip in (False, True)), Layout("parquet", 1)],
)
def test_rows_in_files_of_records(tmp_path: Path, layout: Layout, rows: list[Record]) -> None:
    with (tmp_path / "out").open("wb") as stream, writer(stream, layout) as opened:
        opened.write(rows)
    assert has_rows(str(tmp_path / "out")) == bool(rows)


@pytest.mark.parametrize("count", [0, 2])
def test_rows_in_files_of_features(tmp_path: Path, count: int) -> None:
    numpy.save(tmp_path / "a.npy", numpy.zeros((count, 3), numpy.float32))
    numpy.savez(tmp_path / "a.npz", features=numpy.zeros((0, 3)), sources=[], failed_sources=["a"] * count)
    assert [has_rows(str(tmp_path / name)) for name in ("a.npy", "a.npz")] == [bool(count)] * 2


def test_other_files(tmp_path: Path) -> None:
    assert not has_rows(str(tmp_path / "missing"))
    for content in (b"", b"a header alone"):
        (tmp_path / "one").write_bytes(content)
        assert not has_rows(str(tmp_path / "one"))
    for content in (b"\x1f\x8bno gzip", b"PK no zip", b"PAR1"):
        (tmp_path / "broken").write_bytes(content)
        assert has_rows(str(tmp_path / "broken"))
