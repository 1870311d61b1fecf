"""Pages for the tests: photographs cut out of the samples, their records, and the page that `beit report` makes."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from beitcli.jobs.gallery import GalleryRequest, show
from beitcli.jobs.gallery_page import WrittenPage
from beitcli.jobs.observer import Silent
from beitcli.jobs.requests import Compute, Inputs, Request, Resume
from beitcli.outputs.formats import by_suffix
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Prediction, Record, Score, Source
from tests.conftest import SAMPLES

LABELS = ("ant", "bee", "cow, moo cow", "dog", "eel")


def photographs(folder: Path, count: int, side: int = 48) -> list[Path]:
    """So many different photographs in four folders: parts of the samples."""
    samples = [Image.open(SAMPLES / name).convert("RGB").resize((400, 300)) for name in ("cat.jpg", "boats.jpg")]
    random, paths = np.random.default_rng(3), []
    for number in range(count):
        path = folder / f"day {number % 4}" / f"IMG_{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        left, top = (int(value) for value in random.integers(0, (400 - side, 300 - side)))
        samples[number % 2].crop((left, top, left + side, top + side * 3 // 4)).save(path)
        paths.append(path)
    return paths


def predicted(paths: Sequence[str], labels: Sequence[str] = LABELS, seed: int = 5) -> list[Record]:
    """A prediction of five labels for each path; no two of the best scores are equal."""
    random, records = np.random.default_rng(seed), list[Record]()
    for path, best in zip(paths, random.permutation(len(paths)), strict=True):
        first = round(0.3 + 0.69 * (int(best) + 1) / len(paths), 6)
        others = [round((1 - first) * share, 6) for share in (0.5, 0.3, 0.15, 0.05)]
        order = random.permutation(len(labels))
        scores = [Score(labels[i], int(i), p) for i, p in zip(order, [first, *others], strict=False)]
        records.append(Prediction(Source.named(path), tuple(sorted(scores, key=lambda score: -score.score))))
    return records


def write_records(path: Path, records: Sequence[Record]) -> Path:
    """The records in the format of the file's suffix."""
    name, gzip = by_suffix(str(path))
    with path.open("wb") as stream, writer(stream, Layout(name, 5, gzip)) as rows:
        rows.write(records)
    return path


def write_labels(path: Path, labels: dict[str, str]) -> Path:
    """A table of paths and labels."""
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *labels.items()])
    return path


def report(*results: Path, out: Path, labels: Path | None = None, sample: int | None = None) -> WrittenPage:
    """Write the page, as `beit report` does."""
    inputs = Inputs(list(map(str, results)))
    run = Request(inputs, compute=Compute(workers=0), resume=Resume(out=str(out)), target=str(out.resolve()))
    return show(GalleryRequest(run, None if labels is None else str(labels), sample), Silent())


def failed(path: str, code: str = "truncated", message: str = "the image ends too early") -> Failure:
    return Failure(Source.named(path), code, message)
