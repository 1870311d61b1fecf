"""`beit report` on records of every format: what is on the page, what is made again, and what is refused."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from beitcli.errors import BeitError, OutputError, UsageError
from beitcli.jobs.evaluation_files import EvaluationFiles
from beitcli.jobs.gallery import GalleryRequest, show
from beitcli.jobs.gallery_page import MOST_EMBEDDED, WrittenPage
from beitcli.jobs.observer import Silent
from beitcli.jobs.requests import Inputs, Request, Resume
from beitcli.outputs.lock import exclusive
from beitcli.records import Prediction, Score, Source
from tests.gallery.pages import LABELS, failed, photographs, predicted, report, write_labels, write_records


def data_of(page: Path) -> dict[str, Any]:
    """The data of a page, which is ASCII whatever the encoding that a server says it has."""
    found = re.search(rb'<script type="application/json" id="data">([^<]*)</script>', page.read_bytes())
    assert found is not None
    value: dict[str, Any] = json.loads(found[1].decode("ascii"))
    return value


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return photographs(tmp_path / "in", 8)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_records_of_every_format_give_the_same_page(tmp_path: Path, photos: list[Path], suffix: str) -> None:
    records = [*predicted([str(path) for path in photos]), failed("gone.jpg", message="ä <b>")]
    results = write_records(tmp_path / f"preds.{suffix}", records)
    out = tmp_path / "page.html"
    assert report(results, out=out) == WrittenPage(9, made=8, unseen=0)
    data = data_of(out)
    assert [data["folders"][each] + name for each, name in zip(data["folder"], data["name"], strict=True)] == [
        record.source.name for record in records
    ]
    for record, scores in zip(records, data["predictions"], strict=True):
        expected = [(s.label, s.score) for s in record.scores] if isinstance(record, Prediction) else []
        assert [
            (data["labels"][label], score) for label, score in zip(scores[::2], scores[1::2], strict=True)
        ] == expected
    assert data["failures"] == [[8, "truncated", "ä <b>"]]
    assert [bool(name) for name in data["thumbnails"]] == [True] * 8 + [False]


def test_only_thumbnails_of_changed_images_are_made_again(tmp_path: Path, photos: list[Path]) -> None:
    results = write_records(tmp_path / "preds.csv", predicted([str(path) for path in photos]))
    out = tmp_path / "page.html"
    report(results, out=out)
    before = out.read_bytes()
    assert report(results, out=out) == WrittenPage(8, made=0, unseen=0)
    assert out.read_bytes() == before
    shutil.copy(photos[0], photos[1])
    photos[2].unlink()
    assert report(results, out=out) == WrittenPage(8, made=1, unseen=1)
    data = data_of(out)
    assert data["unseen"] == [[2, "not_found", "no such file"]]
    assert data["addresses"][2] is None
    assert len({name[17:] for name in data["thumbnails"][:2]}) == 1  # the digest of identical images


def test_addresses_are_relative_to_the_page_and_paths_may_be_to_the_results(tmp_path: Path) -> None:
    [path] = photographs(tmp_path / "in", 1)
    shutil.copy(path, path.with_name("a:b?#é.jpg"))
    relative = [os.path.relpath(each, tmp_path) for each in (path, path.with_name("a:b?#é.jpg"))]
    results = write_records(tmp_path / "preds.csv", predicted([*relative, "https://example.invalid/x%20y.jpg"]))
    (tmp_path / "out").mkdir()
    written = report(results, out=tmp_path / "out" / "page.html")
    assert written == WrittenPage(3, made=3, unseen=1)
    addresses = data_of(tmp_path / "out" / "page.html")["addresses"]
    assert addresses[0] == "../in/day%200/IMG_0000.jpg"
    assert addresses[1] == "../in/day%200/a%3Ab%3F%23%C3%A9.jpg"
    assert addresses[2] == "https://example.invalid/x%20y.jpg"


def test_true_labels_are_those_of_a_table_in_the_words_of_the_model(tmp_path: Path, photos: list[Path]) -> None:
    records = predicted([str(path) for path in photos[:4]])
    results = write_records(tmp_path / "preds.jsonl", records)
    assert isinstance(records[2], Prediction)
    true = ["Moo cow", "a new one", records[2].label or "", "BEE"]
    labels = write_labels(tmp_path / "labels.csv", dict(zip(map(str, photos), true, strict=False)))
    report(results, out=tmp_path / "page.html", labels=labels)
    data = data_of(tmp_path / "page.html")
    assert [data["labels"][label] for label in data["true"]] == ["cow, moo cow", "a new one", true[2], "bee"]
    assert data["figures"]["images"] == 4
    assert data["figures"]["top1"]["value"] >= 0.25
    assert [each["label"] for each in data["figures"]["classes"]][-1] == "a new one"
    assert {each["label"] for each in data["figures"]["classes"]} <= {*LABELS, "a new one"}


@pytest.mark.slow
def test_more_images_have_their_thumbnails_in_a_folder(tmp_path: Path) -> None:
    [path] = photographs(tmp_path / "in", 1)
    paths = [path.with_name(f"{number}.jpg") for number in range(MOST_EMBEDDED + 1)]
    for each in paths:
        os.link(path, each)
    records = predicted([str(each) for each in paths])
    some, all_of_them = (write_records(tmp_path / f"{n}.csv", records[:n]) for n in (MOST_EMBEDDED, MOST_EMBEDDED + 1))
    out = tmp_path / "page.html"
    assert report(some, out=out).made == MOST_EMBEDDED
    assert report(all_of_them, out=out).made == 1
    assert len(list((tmp_path / "page_files").rglob("*.thumbnail"))) == MOST_EMBEDDED + 1
    assert data_of(out)["thumbnail_folder"] == "page_files"
    assert report(some, out=out).made == 0
    assert not (tmp_path / "page_files").exists()


def request(*inputs: object, out: Path, **fields: Any) -> GalleryRequest:
    run = Request(Inputs([str(each) for each in inputs]), resume=Resume(out=str(out)), target=str(out))
    return GalleryRequest(run, **fields)


def test_refused(tmp_path: Path, photos: list[Path]) -> None:
    results = write_records(tmp_path / "preds.csv", predicted([str(path) for path in photos]))
    (tmp_path / "other.json").write_text('{"figures": {}}')
    (tmp_path / "other.csv").write_text("path,label\n")
    (tmp_path / "empty.jsonl").touch()
    out = tmp_path / "page.html"
    for wanted, error, message in [
        (request(results, out=tmp_path / "page.txt"), UsageError, "ends in .html"),
        (request(results, out=tmp_path / "no" / "page.html"), OutputError, "does not exist"),
        (request(results, photos[0], out=out), UsageError, "holds results, and `.*jpg` does not"),
        (request(tmp_path / "earlier.html", out=out), UsageError, "`.*earlier.html` is a page: it shows results"),
        (request(tmp_path / "other.json", out=out), BeitError, "no JSON of `beit eval`"),
        (request(tmp_path / "other.csv", out=out), BeitError, "not the header"),
        (request(tmp_path / "empty.jsonl", out=out), UsageError, "has no row"),
        (request(results, out=out, sample=0), UsageError, "sample"),
        (request(out, out=out), UsageError, "is an input"),
    ]:
        with pytest.raises(error, match=message):
            show(wanted, Silent())
        assert not out.exists()
    strangers = write_labels(tmp_path / "labels.csv", {"strange.jpg": "cat"})
    with pytest.raises(UsageError, match="label of none of these images"):
        show(request(results, out=out, labels=str(strangers)), Silent())


def test_a_page_of_an_evaluation_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a page is a file"):
        EvaluationFiles(None, None, None, str(tmp_path / "page.txt")).check()


def test_a_page_that_another_run_is_writing_is_left_alone(tmp_path: Path, photos: list[Path]) -> None:
    results = write_records(tmp_path / "preds.csv", predicted([str(photos[0])]))
    with exclusive(str(tmp_path / "page.html"), wait=False), pytest.raises(OutputError, match="another run"):
        report(results, out=tmp_path / "page.html")


def test_images_of_a_name_that_is_a_url_or_nothing(tmp_path: Path) -> None:
    records = [Prediction(Source("-"), (Score("cat", 0, 0.5),)), Prediction(Source("a\nb"), ())]
    report(write_records(tmp_path / "preds.jsonl", records), out=tmp_path / "page.html")
    assert [each[1] for each in data_of(tmp_path / "page.html")["unseen"]] == ["not_found", "not_found"]
