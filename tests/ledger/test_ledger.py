"""The ledger of a batch run, on real files: images to process, stored results, and broken ledgers."""

import hashlib
import logging
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beitcli.errors import ERROR_CODES, BusyError, OutputError
from beitcli.ledger.codecs import ScoresCodec
from beitcli.ledger.database import cached_digest, has_images_under, move_aside, open_database
from beitcli.ledger.ledger import Ledger, Recompute
from beitcli.outputs.summary import Tally
from beitcli.records import STDIN, UNKNOWN, Failure, Found, Identity, Prediction, Record, Score, Source

LABELS = ("ant", "bee", "cow")
FACTS = {"model": "0123", "--dtype": "fp32", "--top-k": "2"}
SCORES = (Score("cow", 2, 0.70000005), Score("ant", 0, 1e-07))
Result = Callable[[Source], Record]
Predictions = Ledger[Prediction]


@contextmanager
def opened(path: Path, facts: Mapping[str, str] = FACTS, labels: Sequence[str] = LABELS) -> Iterator[Predictions]:
    with open_database(str(path)) as database:
        yield Ledger(database, facts, ScoresCodec(labels, 2))


def image(name: str, size: int = 10, mtime_ns: int = 1_700_000_000_123_456_789) -> Source:
    return Source(name, known=Identity(size=size, mtime_ns=mtime_ns))


def url(name: str) -> Source:
    return Source(f"http://h/{name}", "url")


def good(source: Source) -> Record:
    return Prediction(source, SCORES, source.known)


def bad(code: str) -> Result:
    return lambda source: Failure(source, code, f"the message of {code}", source.known)


def run(
    path: Path,
    found: Sequence[Found],
    result: Result = good,
    again: Recompute = Recompute(),  # noqa: B008  # frozen
    facts: Mapping[str, str] = FACTS,
) -> tuple[list[str], dict[str, int]]:
    """One whole run: the images processed, and the number in each state."""
    states: Counter[str] = Counter()
    with opened(path, facts) as ledger:
        pending = list(ledger.pending(found, again, states))  # type: ignore[arg-type]
        ledger.add([result(source) for source in pending])
    return [source.location for source in pending], dict(states)


def states_now(path: Path, found: Sequence[Found], errors: bool = False) -> dict[str, int]:
    """The states in a run that is not committed."""
    states: Counter[str] = Counter()
    again = Recompute(errors=errors)
    with opened(path) as ledger:
        for _ in ledger.pending(found, again, states):  # type: ignore[arg-type]
            pass
    return dict(states)


def records(path: Path, found: Sequence[Found]) -> list[Record]:
    with opened(path) as ledger:
        for _ in ledger.pending(found, Recompute(), Counter()):
            pass
        return [record for part in ledger.records() for record in part]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.csv.ledger"


# Images to process


NEXT_TIME = {
    "not_found": "to retry",
    "permission": "to retry",
    "io_error": "to retry",
    "empty_file": "up to date",
    "not_an_image": "up to date",
    "truncated": "up to date",
    "corrupt": "up to date",
    "too_large": "up to date",
    "unsupported": "up to date",
    "timeout": "to retry",
    "network": "to retry",
    "decoder_crashed": "to retry",
    "out_of_memory": "to retry",
    "worker_lost": "to retry",
    "http_400": "up to date",
    "http_404": "up to date",
    "http_410": "up to date",
    "http_499": "up to date",
    "http_408": "to retry",
    "http_425": "to retry",
    "http_429": "to retry",
    "http_304": "to retry",
    "http_500": "to retry",
    "http_503": "to retry",
}


def test_every_error_code_is_in_the_table() -> None:
    assert set(ERROR_CODES) == {code for code in NEXT_TIME if not code.startswith("http")} | {"http_NNN"}


@pytest.mark.parametrize(("code", "state"), NEXT_TIME.items())
def test_a_failure_stays_or_is_tried_again(path: Path, code: str, state: str) -> None:
    source = url("a.png") if code.startswith("http") else image("a.png")
    assert run(path, [source], bad(code)) == ([source.location], {"new": 1})
    assert states_now(path, [source]) == {state: 1}
    assert states_now(path, [source], errors=True) == {"to retry": 1}
    assert records(path, [source]) == [bad(code)(source)]
    run(path, [source], good, Recompute(errors=True))
    assert states_now(path, [source]) == states_now(path, [source], errors=True) == {"up to date": 1}


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (image("a.png"), "up to date"),
        (image("a.png", size=11), "changed"),
        (image("a.png", mtime_ns=1_700_000_000_123_456_788), "changed"),
        (image("a.png", mtime_ns=-1), "changed"),
        (Source("a.png"), "changed"),
        (image("b.png"), "new"),
        (image("./a.png"), "new"),
        (Source("a.png", "url"), "new"),
        (Failure(Source("a.png"), "not_found", "gone"), "changed"),
    ],
)
@pytest.mark.parametrize("result", [good, bad("corrupt")])
def test_an_image_is_identified_by_its_name_size_and_time(path: Path, now: Found, state: str, result: Result) -> None:
    run(path, [image("a.png")], result)
    assert states_now(path, [now]) == {state: 1}


def test_an_image_that_changed_while_it_was_read_is_read_again(path: Path) -> None:
    source = image("a.png")
    run(path, [source], lambda source: Prediction(source, SCORES, UNKNOWN))
    assert states_now(path, [source]) == {"changed": 1}


def test_a_crash_is_tried_once_more_and_then_stays(path: Path) -> None:
    source, crash = image("a.png"), bad("decoder_crashed")
    history = [run(path, [source], crash)[1] for _ in range(4)]
    assert history == [{"new": 1}, {"to retry": 1}, {"up to date": 1}, {"up to date": 1}]
    assert run(path, [source], crash, Recompute(errors=True)) == (["a.png"], {"to retry": 1})
    assert states_now(path, [source]) == {"up to date": 1}
    changed = [run(path, [image("a.png", size=11)], crash)[1] for _ in range(3)]
    assert changed == [{"changed": 1}, {"to retry": 1}, {"up to date": 1}]


def test_crashes_are_counted_without_a_break(path: Path) -> None:
    source = image("a.png")
    for result in (bad("decoder_crashed"), bad("timeout"), bad("decoder_crashed")):
        run(path, [source], result)
    assert states_now(path, [source]) == {"to retry": 1}


def test_a_url_is_only_refreshed_on_request_with_its_validators(path: Path) -> None:
    validators = Identity(etag='"7"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    found = [url("a.png"), url("b.png"), image("c.png")]
    run(path, found, lambda source: Prediction(source, SCORES, validators if source == url("a.png") else source.known))
    assert states_now(path, found) == {"up to date": 3}
    with opened(path) as ledger:
        pending = list(ledger.pending(found, Recompute(urls=True), Counter()))
    assert [(source, source.known) for source in pending] == [(url("a.png"), validators), (url("b.png"), UNKNOWN)]


def test_other_facts_recompute_everything_with_one_notice(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = [image("a.png"), image("b.png"), url("c.png"), image("d.png")]
    run(path, found, lambda source: bad("corrupt")(source) if source.location == "b.png" else good(source))
    facts = FACTS | {"--dtype": "bf16", "model": "4567", "new fact": "yes"}
    with caplog.at_level(logging.INFO, "beitcli"):
        assert run(path, found[:3], facts=facts)[1] == {"changed": 3}
        assert run(path, found[:3], facts=facts)[1] == {"up to date": 3}
    [notice] = caplog.messages
    for change in ("model 0123 -> 4567", "--dtype fp32 -> bf16", "new fact None -> yes"):
        assert change in notice
    assert "--top-k" not in notice
    caplog.clear()
    assert run(path, found)[1] == {"changed": 3, "up to date": 1}  # back again: d still has the old facts


def test_the_order_of_facts_is_ignored(path: Path) -> None:
    run(path, [image("a.png")])
    assert run(path, [image("a.png")], facts=dict(reversed(FACTS.items())))[1] == {"up to date": 1}


def test_standard_input_is_new_each_time_and_its_result_is_not_kept(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    for _ in range(2):
        out.write_text("rows")
        with opened(path) as ledger:
            states: Counter[str] = Counter()
            ledger.add([good(source) for source in ledger.pending([STDIN, image("a.png")], Recompute(), states)])  # type: ignore[arg-type]
            assert states["new"] >= 1
            assert [[record.source for record in part] for part in ledger.records()] == [[STDIN, image("a.png")]]
            assert not ledger.is_written([str(out)], "csv")
            ledger.mark_written([str(out)], "csv")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT source FROM pictures").fetchall() == [(b"a.png",)]
    assert states_now(path, [image("a.png")]) == {"up to date": 1}


# Stored results


def test_only_added_records_are_on_the_disk(path: Path, tmp_path: Path) -> None:
    gone = Failure(Source("c.png"), "not_found", "gone")
    found: list[Source | Failure] = [image("a.png"), image("b.png"), gone, image("d.png")]
    with opened(path) as ledger:
        pending = ledger.pending(found, Recompute(), Counter())
        ledger.add([good(next(pending))])
        next(pending)
        next(pending)
        copies = [shutil.copy(f"{path}{suffix}", tmp_path / f"copy{suffix}") for suffix in ("", "-wal")]
    assert [os.path.getsize(copy) > 0 for copy in copies] == [True, True]
    for place in (path, tmp_path / "copy"):
        assert states_now(place, found) == {"up to date": 1, "new": 3}


def test_results_are_read_back_unchanged_and_in_the_order_of_this_run(path: Path) -> None:
    names = ["b.png", os.fsdecode(b"caf\xe9.png"), "new\nline.png", "日本.png", "b.png", "a\0b"]
    found = [image(name) for name in names]
    assert run(path, found) == ([*names[:4], names[5]], {"new": 6})
    assert records(path, found) == [good(source) for source in found]
    backwards = found[::-1] + found[:1]
    assert records(path, backwards) == [good(source) for source in backwards]
    assert records(path, found[1:3]) == [good(source) for source in found[1:3]]


def test_many_results_come_in_lists(path: Path) -> None:
    found = [image(f"{number}.png") for number in range(2500)]
    assert len(run(path, found)[0]) == 2500
    with opened(path) as ledger:
        assert list(ledger.pending(found, Recompute(), Counter())) == []
        lists = list(ledger.records())
    assert [record.source for part in lists for record in part] == found
    assert max(map(len, lists)) < 2500


def digested(source: Source) -> Record:
    return Prediction(source, SCORES, replace(source.known, digest=b"same"))


@pytest.mark.parametrize(
    ("facts", "digest", "result", "expected"),
    [
        (FACTS, b"same", digested, SCORES),
        (FACTS, b"other", digested, None),
        (FACTS | {"--dtype": "bf16"}, b"same", digested, None),
        (FACTS, b"same", good, None),
        (FACTS, b"same", lambda s: Failure(s, "corrupt", "m", replace(s.known, digest=b"same")), None),
    ],
    ids=["identical", "other bytes", "other facts", "no digest", "a failure"],
)
def test_an_identical_image_has_a_result(
    path: Path, facts: Mapping[str, str], digest: bytes, result: Result, expected: object
) -> None:
    run(path, [image("a.png")], result)
    with opened(path, facts) as ledger:
        assert ledger.result_of(digest) == expected


def test_a_result_of_this_run_is_found_in_it(path: Path) -> None:
    with opened(path) as ledger:
        ledger.add([digested(source) for source in ledger.pending([image("a.png")], Recompute(), Counter())])
        assert ledger.result_of(b"same") == SCORES


def test_a_tally_of_all_requested_images(path: Path) -> None:
    a, b, c, d, e = (image(f"{name}.png") for name in "abcde")
    run(path, [a, b], lambda source: good(source) if source == a else bad("corrupt")(source))
    with opened(path) as ledger:
        tally = Tally()
        pending = list(ledger.pending([a, b, a, c, d, e, c], Recompute(), Counter()))
        results = [good(c), replace(good(d), reused=True), bad("timeout")(e)]  # type: ignore[arg-type]
        assert pending == [c, d, e]
        ledger.add(results)
        tally.add(results)
        ledger.count(tally, is_complete=True)
    assert (tally.images, tally.kept, tally.decoded, tally.reused) == (7, 2, 1, 2)
    assert tally.failed == {"corrupt": 1, "timeout": 1}


# Results of images that are no longer requested


def test_results_no_longer_requested_are_deleted_only_by_prune(path: Path) -> None:
    found = [image("a.png"), image("b.png"), url("c.png"), image("d.png")]
    run(path, found)
    for prune in (False, True):
        with opened(path) as ledger:
            assert list(ledger.pending(found[1:2], Recompute(), Counter())) == []
            assert ledger.count_removed() == 3
            if prune:
                ledger.prune()
                assert ledger.count_removed() == 0
    assert states_now(path, found) == {"new": 3, "up to date": 1}


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("pics", True),
        ("pics/", True),
        ("pics//", True),
        ("pics/sub", True),
        ("pics/su", False),
        ("pic", False),
        ("pics0", False),
        ("pics/sub/a.png", False),
        (".", True),
        ("dot", False),
        ("./dot", True),
        ("/abs", True),
        ("/", True),
        (os.fsdecode(b"caf\xe9"), True),
        ("http://h", False),
        ("pending", False),
    ],
)
def test_a_folder_that_had_an_image(path: Path, folder: str, expected: bool) -> None:
    names = ["pics/sub/a.png", "pics-2/b.png", "./dot/c.png", "/abs/d.png", os.fsdecode(b"caf\xe9/e.png")]
    run(path, [*map(image, names), url("a.png")])
    with open_database(str(path)) as database:
        next(Ledger(database, FACTS, ScoresCodec(LABELS, 2)).pending([image("pending/a.png")], Recompute(), Counter()))
        assert has_images_under(folder, database) is expected


# Unchanged output


def touch(out: Path) -> None:
    os.utime(out, ns=(0, out.stat().st_mtime_ns + 1))


def replace_by_a_copy(out: Path) -> None:
    shutil.copy2(out, f"{out}.new")
    os.replace(f"{out}.new", out)


def append(out: Path) -> None:
    before = out.stat()
    with open(out, "ab") as stream:
        stream.write(b"more")
    os.utime(out, ns=(before.st_atime_ns, before.st_mtime_ns))


A, B = image("a.png"), image("b.png")


@pytest.mark.parametrize(
    ("meddle", "found", "result", "appearance", "expected"),
    [
        (lambda out: None, [A, B], good, "csv", True),
        (touch, [A, B], good, "csv", False),
        (replace_by_a_copy, [A, B], good, "csv", False),
        (append, [A, B], good, "csv", False),
        (os.unlink, [A, B], good, "csv", False),
        (lambda out: None, [A, B], good, "csv, another threshold", False),
        (lambda out: None, [B, A], good, "csv", False),
        (lambda out: None, [A], good, "csv", False),
        (lambda out: None, [A, B, A], good, "csv", False),
        (lambda out: None, [A, B, image("c.png")], good, "csv", False),
        (lambda out: None, [A, image("b.png", size=11)], bad("timeout"), "csv", False),
        (lambda out: None, [A, image("b.png", size=11)], good, "csv", True),
    ],
    ids=[
        "untouched",
        "touched",
        "replaced",
        "longer",
        "deleted",
        "appearance",
        "order",
        "one less",
        "one twice",
        "one more",
        "another result",
        "the same result of other bytes",
    ],
)
def test_unchanged_output_is_recognised(
    path: Path,
    tmp_path: Path,
    meddle: Callable[[Path], None],
    found: list[Source],
    result: Result,
    appearance: str,
    expected: bool,
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("rows")
    with opened(path) as ledger:
        ledger.add([good(source) for source in ledger.pending([A, B], Recompute(), Counter())])
        assert not ledger.is_written([str(out)], "csv")
        ledger.mark_written([str(out)], "csv")
    meddle(out)
    with opened(path) as ledger:
        ledger.add([result(source) for source in ledger.pending(found, Recompute(), Counter())])
        assert ledger.is_written([str(out)], appearance) is expected


def test_a_repeated_failure_leaves_the_output_valid(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("rows")
    for result, expected in ((bad("timeout"), False), (bad("timeout"), True), (bad("network"), False)):
        with opened(path) as ledger:
            ledger.add([result(source) for source in ledger.pending([A], Recompute(), Counter())])
            assert ledger.is_written([str(out)], "csv") is expected
            ledger.mark_written([str(out)], "csv")


# The file itself


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def cut(path: Path) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def overwritten_within(path: Path) -> None:
    with open(path, "r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xff" * (os.path.getsize(path) - 4096))


def invalid_scores(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE pictures SET scores = '[[77, 0.5]]'")
        database.commit()


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE pictures (title TEXT)")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message", "hint"),
    [
        (garbage, "damaged", "`fresh=True`"),
        (cut, "damaged", "`fresh=True`"),
        (overwritten_within, "damaged", "`fresh=True`"),
        (invalid_scores, "damaged", "`fresh=True`"),
        (newer, "newer version", "`fresh=True`"),
        (foreign, "no ledger of beit", "another file"),
        (folder, "cannot use the ledger", None),
    ],
)
def test_an_invalid_ledger_is_one_error_and_left_unchanged(
    path: Path, damage: Callable[[Path], None], message: str, hint: str | None
) -> None:
    found = [image(f"{number}.png") for number in range(200)]
    run(path, found)
    damage(path)
    before = path.is_file() and path.read_bytes()
    with pytest.raises(OutputError, match=message) as caught:
        records(path, found)
    assert str(path) in str(caught.value)
    assert (hint or "None") in str(caught.value.hint)
    assert (path.is_file() and path.read_bytes()) == before


def test_an_empty_file_is_a_ledger_without_results(path: Path) -> None:
    path.touch()
    assert run(path, [A]) == (["a.png"], {"new": 1})
    assert states_now(path, [A]) == {"up to date": 1}


def test_a_database_without_a_name_is_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with open_database("") as database:
            ledger = Ledger(database, FACTS, ScoresCodec(LABELS, 2))
            ledger.add([good(source) for source in ledger.pending([A], Recompute(), Counter())])
            assert [record for part in ledger.records() for record in part] == [good(A)]
            assert os.listdir(tmp_path) == []


def test_a_ledger_moves_aside_with_its_log(path: Path, tmp_path: Path) -> None:
    with opened(path) as ledger:
        ledger.add([good(source) for source in ledger.pending([A], Recompute(), Counter())])
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", tmp_path / f"killed{suffix}")
    killed = tmp_path / "killed"
    Path(f"{killed}.old-journal").write_bytes(b"of a time before")
    move_aside(str(killed))
    assert sorted(name for name in os.listdir(tmp_path) if "killed" in name) == [
        "killed.old-journal",
        "killed.old2",
        "killed.old2-wal",
    ]
    assert states_now(killed, [A]) == {"new": 1}
    assert states_now(Path(f"{killed}.old2"), [A]) == {"up to date": 1}
    move_aside(str(tmp_path / "never was"))


@pytest.mark.slow
def test_a_ledger_that_another_program_writes_to_is_one_error(path: Path) -> None:
    run(path, [A])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BusyError, match="another program"):
            run(path, [A, B])
    assert run(path, [A, B])[1] == {"up to date": 1, "new": 1}


def test_a_digest_is_cached_until_the_file_is_touched(path: Path, tmp_path: Path) -> None:
    weights, link = tmp_path / "weights", tmp_path / "link"
    weights.write_bytes(b"one")
    link.symlink_to(weights)
    with open_database(str(path)) as database:
        first = cached_digest(str(weights), database)
        before = weights.stat()
        assert cached_digest(str(link), database) == first
        database.execute("UPDATE files SET digest = 'cached'")
        assert cached_digest(str(link), database) == "cached"
        weights.write_bytes(b"two")
        os.utime(weights, ns=(0, before.st_mtime_ns))  # as a copy that keeps times does
        second = cached_digest(str(weights), database)
        assert second != first
    with open_database(str(path)) as database:
        assert cached_digest(str(weights), database) == second
        with pytest.raises(FileNotFoundError):
            cached_digest(f"{weights}.missing", database)


def test_signed_urls_of_an_earlier_ledger_become_one_source(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    old = [Source(f"http://me:pw@h/{name}?X-Amz-Signature={day}", "url") for name in "ab" for day in (1, 2)]
    run(path, [*old[:3], url("a")])
    run(path, old)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM state WHERE key = 'urls'")
    assert run(path, [url("a"), url("b")])[1] == {"up to date": 2}
    assert [each.source.location for each in records(path, [url("b"), url("a")])] == ["http://h/b", "http://h/a"]
    with opened(path) as ledger:
        list(ledger.pending([url("a")], Recompute(), Counter()))
        assert ledger.count_removed() == 1


@pytest.mark.parametrize("year", [1901, 2400])
def test_a_file_of_any_time_has_its_digest_cached(tmp_path: Path, year: int) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    seconds = int(datetime(year, 12, 31, tzinfo=UTC).timestamp())
    os.utime(weights, (seconds, seconds))
    if os.stat(weights).st_mtime != seconds:
        pytest.skip("this file system has no such time")
    with open_database(str(tmp_path / "out.csv.ledger")) as database:
        first = cached_digest(str(weights), database)
        database.execute("UPDATE files SET digest = 'cached'")
        assert first == hashlib.sha256(b"weights").hexdigest()
        assert cached_digest(str(weights), database) == "cached"
