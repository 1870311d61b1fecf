"""Records of many files: each source once, in the order of a walk."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from beitcli.errors import BeitError
from beitcli.inputs.sources import Walk, discover
from beitcli.outputs.merging import RecordTexts, collection
from beitcli.records import Failure, Prediction, Record, Score, Skipped, Source

CAT = Prediction(Source("a"), (Score("cat", 3, 0.5),))
DOG = Prediction(Source("a"), (Score("dog", 5, 0.5),))
LESS = Prediction(Source("a"), (Score("cat", 3, 0.25),))
NONE = Prediction(Source("a"), ())
UNREACHABLE = Failure(Source("a"), "network", "no connection")
BROKEN = Failure(Source("a"), "corrupt", "the image contradicts its own format")


def collected(*parts: list[Record]) -> tuple[list[Record], int, int]:
    with collection(RecordTexts()) as records:
        for number, part in enumerate(parts):
            records.add(part, f"{number}.csv")
        return list(records.in_order()), records.equal, records.overruled


NAMES = (
    ["a.jpg", "a/x.jpg", "a/b/y.jpg", "a/b.jpg", "a-b/z.jpg", "a b.jpg", "A.jpg", "a!/x.jpg", "a0.jpg", "\x01.jpg"]
    + [
        "a\\x80.jpg",
        "a\\.jpg",
        "é.jpg",
        "日本/x.jpg",
        "\U0001f600.jpg",
        "\ufb01.jpg",
        "new\nline.jpg",
        "a\\xc3\\xa9.jpg",
    ]
    + [
        name.decode("utf-8", "surrogateescape")
        for name in (b"\xe9.jpg", b"\xff/x.jpg", b"a\x80/x.jpg", b"a\xc3\xa8.jpg")
    ]
)


@pytest.mark.parametrize("typed", ["here", "./here/", "."])
def test_the_order_is_that_of_a_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    for name in set(NAMES) - {"a\\x80.jpg"}:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).touch()
    monkeypatch.chdir(tmp_path)
    walk = Walk((".jpg",), (), False, False, None)
    found = [
        Source.named(source.name) for source in discover([typed], [], walk, Skipped()) if isinstance(source, Source)
    ]
    assert len(found) == len(NAMES) - 1
    records: list[Record] = [Prediction(source, ()) for source in found]
    random.Random(3).shuffle(records)
    assert [record.source for record in collected(records[:9], records[9:])[0]] == found


@pytest.mark.parametrize(
    ("parts", "stays", "equal", "overruled"),
    [
        ([[CAT], [CAT], [CAT]], CAT, 2, 0),
        ([[CAT, CAT]], CAT, 1, 0),
        ([[UNREACHABLE], [CAT]], CAT, 0, 1),
        ([[CAT], [UNREACHABLE]], CAT, 0, 1),
        ([[UNREACHABLE], [BROKEN]], UNREACHABLE, 0, 1),
        ([[UNREACHABLE], [UNREACHABLE]], UNREACHABLE, 1, 0),
        ([[UNREACHABLE], [BROKEN], [CAT], [CAT]], CAT, 1, 2),
    ],
)
def test_which_record_stays(parts: list[list[Record]], stays: Record, equal: int, overruled: int) -> None:
    assert collected(*parts) == ([stays], equal, overruled)


@pytest.mark.parametrize("other", [DOG, LESS, NONE])
def test_different_predictions_are_reported_with_their_files(other: Record) -> None:
    with pytest.raises(BeitError, match=r"different predictions for `a` in `1\.csv` and `2\.csv`"):
        collected([UNREACHABLE], [CAT], [other])


FILL = """
import resource
from beitcli.outputs.merging import RecordTexts, collection
from beitcli.records import Failure, Source

resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
with collection(RecordTexts()) as records:
    records.add((Failure(Source(f"{number}.jpg"), "corrupt", "x" * 1000) for number in range(20_000)), "a.csv")
"""


def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", FILL], capture_output=True, text=True, cwd=tmp_path)
    assert "OutputError: cannot sort the records: " in process.stderr.splitlines()[-1]


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 40_000):
        code = FILL.replace("1_000_000", "resource.RLIM_INFINITY").replace("20_000", str(count))
        code += "\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(process.stdout))
    assert peaks[1] - peaks[0] < 10_000  # of 40 MB that were collected
