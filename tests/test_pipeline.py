"""The pipeline from sources to records: batches, padding, and batches without any image."""

import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits
from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.preprocessing import checkpoint_preprocessing
from beitcli.model.runtime import Runtime
from beitcli.pipeline import Predictor, Settings, load_classifier, predict
from beitcli.records import Failure, Prediction, Record, Score, Source
from beitcli.timings import Timings
from tests.conftest import SAMPLES


def settings(batch_size: int, padded: bool, digest: bool = False, concurrency: int = 1) -> Settings:
    checkpoint = open_checkpoint("demo", None)
    return Settings(
        checkpoint=checkpoint,
        preprocessing=checkpoint_preprocessing(checkpoint.processor, None),
        runtime=Runtime("cpu", "fp32", many_batches=concurrency > 1),
        batch_size=batch_size,
        padded=padded,
        workers=1,
        decoding=Decoding(digest=digest),
        fetching=FetchLimits(),
    )


def predictor(batch_size: int, padded: bool, digest: bool = False, concurrency: int = 1) -> Predictor[Prediction]:
    return Predictor(settings(batch_size, padded, digest, concurrency), partial(load_classifier, top_k=3), Prediction)


def predictions(
    found: list[Source | Failure], batch_size: int, padded: bool, concurrency: int = 1
) -> list[list[Record]]:
    return list(predict(found, predictor(batch_size, padded, concurrency=concurrency), Timings()))


@pytest.fixture
def found(tmp_path: Path) -> list[Source | Failure]:
    """Five images with three broken files and a closed folder among them."""
    items: list[Source | Failure] = []
    for number, name in enumerate(["cat", "boats", "cat", "coffee", "boats"]):
        shutil.copy(SAMPLES / f"{name}.jpg", tmp_path / f"{number}{name}.jpg")
        items.append(Source(str(tmp_path / f"{number}{name}.jpg")))
        if number < 3:
            (tmp_path / f"{number}broken.jpg").write_bytes(b"\xff\xd8\xff")
            items.append(Source(str(tmp_path / f"{number}broken.jpg")))
    items.insert(4, Failure(Source("closed"), "permission", "cannot list the folder"))
    return items


def sources(records: list[Record]) -> list[Source]:
    return [record.source for record in records]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_every_item_has_one_record_in_input_order(
    found: list[Source | Failure], batch_size: int, padded: bool, concurrency: int
) -> None:
    records = [record for batch in predictions(found, batch_size, padded, concurrency) for record in batch]
    assert sources(records) == [item.source if isinstance(item, Failure) else item for item in found]
    assert [isinstance(record, Prediction) for record in records] == [
        isinstance(item, Source) and not item.name.endswith("broken.jpg") for item in found
    ]


def test_padded_predictions_depend_on_no_other_image(found: list[Source | Failure]) -> None:
    whole = {record.source: record for batch in predictions(found, 4, padded=True, concurrency=2) for record in batch}
    for item in found:
        [[alone]] = predictions([item], 4, padded=True, concurrency=2)
        assert alone == whole[alone.source]


def test_a_batch_in_which_everything_is_broken_is_an_ordinary_batch(found: list[Source | Failure]) -> None:
    broken = [item for item in found if isinstance(item, Source) and item.name.endswith("broken.jpg")]
    batches = predictions([*broken], 2, padded=True)
    assert [[type(record) for record in batch] for batch in batches] == [[Failure]] * 3


def test_broken_images_do_not_delay_a_prediction_forever(found: list[Source | Failure], tmp_path: Path) -> None:
    broken = [item for item in found if isinstance(item, Source) and item.name.endswith("broken.jpg")][:1] * 100
    sizes = [len(batch) for batch in predictions([found[0], *broken], 2, padded=True)]
    assert max(sizes) == 32
    assert sum(sizes) == 101


@pytest.mark.parametrize("concurrency", [1, 2])
def test_predictions_come_before_the_input_ends(found: list[Source | Failure], concurrency: int) -> None:
    read = []

    def endless() -> Iterator[Source | Failure]:
        while True:
            read.append(1)
            yield found[0]

    with closing(predict(endless(), predictor(2, padded=True, concurrency=concurrency), Timings())) as stream:
        assert len(next(stream)) == 2
    assert len(read) < 40


def test_identical_images_in_flight_share_a_forward_pass(found: list[Source | Failure]) -> None:
    images = [item for item in found if isinstance(item, Source) and not item.name.endswith("broken.jpg")]
    cache: dict[bytes, tuple[Score, ...]] = {}
    marked = ""
    for records in predict(images * 3, predictor(2, padded=True, digest=True, concurrency=2), Timings(), cache.get):
        marked += marks(records)
        cache |= {r.identity.digest: r.scores for r in records if isinstance(r, Prediction) and r.identity.digest}
    assert marked == "mmrmr" + "r" * 10


def deduplicated(
    found: list[Source | Failure], batch_size: int, known: Callable[[bytes], tuple[Score, ...] | None] = lambda _: None
) -> list[Record]:
    batches = predict(found, predictor(batch_size, padded=True, digest=True), Timings(), known)
    return [record for batch in batches for record in batch]


def marks(records: list[Record]) -> str:
    """One letter per record: failed, reused, or predicted by the model."""
    return "".join("f" if isinstance(record, Failure) else "r" if record.reused else "m" for record in records)


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(1, "mfmffmfmm"), (2, "mfmffmfmm"), (3, "mfmffrfmm"), (8, "mfmffrfmr")]
)
def test_identical_images_in_a_batch_share_a_forward_pass(
    found: list[Source | Failure], batch_size: int, expected: str
) -> None:
    records = deduplicated(found, batch_size)
    undigested = [record for batch in predictions(found, batch_size, padded=True) for record in batch]
    assert (marks(records), marks(undigested)) == (expected, "mfmffmfmm")
    assert records == undigested


def test_scores_known_by_the_digest_need_no_model(found: list[Source | Failure]) -> None:
    cat = hashlib.sha256((SAMPLES / "cat.jpg").read_bytes()).digest()
    cached, lookups = (Score("not of any model", 77, 0.5),), []

    def known(digest: bytes) -> tuple[Score, ...] | None:
        lookups.append(digest)
        return cached if digest == cat else None

    records = deduplicated(found, 8, known)
    assert marks(records) == "rfmffrfmr"
    assert [isinstance(record, Prediction) and record.scores == cached for record in records] == [
        isinstance(item, Source) and item.name.endswith("cat.jpg") for item in found
    ]
    assert [record.identity.digest for record in records if isinstance(record, Prediction)] == lookups
    assert sources(records) == [item.source if isinstance(item, Failure) else item for item in found]


@pytest.mark.parametrize(("workers", "count"), [(0, 3), (1, 1)])
def test_a_predictor_is_loaded_once_and_serves_threads(found: list[Source | Failure], workers: int, count: int) -> None:
    loaded = []
    plain = replace(settings(2, padded=True), workers=workers)

    def load(of: Settings) -> Any:
        loaded.append(of)
        return load_classifier(of, 3)

    shared = Predictor(plain, load, Prediction)
    wanted = [record for batch in predict(found, shared, Timings()) for record in batch]
    results: dict[int, list[Record]] = {}

    def run(number: int) -> None:
        results[number] = [record for batch in predict(found, shared, Timings()) for record in batch]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(loaded) == 1
    assert [results[number] for number in range(count)] == [wanted] * count
