"""An image's identity is that of the bytes that were read."""

import hashlib
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli.inputs.decode import Decoding, Outcome, outcome
from beitcli.inputs.quarantine import decode_alone
from beitcli.records import UNKNOWN, Failure, Fetched, Identity, Source
from tests.conftest import SAMPLES

FIELD = Path(__file__).parents[1] / "field"
DIGESTED = Decoding(seconds=0, digest=True)


class Small:
    shape = (4, 4, 3)
    dtype = "uint8"

    def __call__(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 4)))


def identity(result: Outcome) -> Identity:
    return result.identity if isinstance(result, Failure) else result[1]


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return Path(shutil.copy(SAMPLES / "cat.jpg", tmp_path))


def test_a_file_has_its_size_time_and_digest(cat: Path) -> None:
    status, digest = cat.stat(), hashlib.sha256(cat.read_bytes()).digest()
    result = outcome(Source(str(cat)), Small(), DIGESTED, nullcontext())
    assert identity(result) == Identity(size=status.st_size, mtime_ns=status.st_mtime_ns, digest=digest)
    assert identity(outcome(Source(str(cat)), Small(), Decoding(), nullcontext())).digest is None


def test_the_pixels_of_an_image_are_the_lowest_limit_under_which_it_is_decoded(cat: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for suffix in ("png", "gif", "ico", "icns", "jp2", "webp", "bmp", "tga", "dds", "qoi"):
        Image.fromarray(random.integers(0, 256, (32, 48, 3), np.uint8)).save(tmp_path / f"image.{suffix}")
    counted = 0
    for path in (*tmp_path.iterdir(), *FIELD.iterdir()):
        for scaled_to in (None, (16, 16)):

            def under(most: int) -> Outcome:
                return outcome(Source(str(path)), Small(), Decoding(most, 0, scaled_to), nullcontext())  # noqa: B023

            result = under(200_000_000)
            if not isinstance(result, Failure):
                pixels = result[1].pixels
                assert pixels is not None
                assert not isinstance(under(pixels), Failure), path
                smaller = under(pixels - 1)
                assert isinstance(smaller, Failure) and smaller.code == "too_large", path
                counted += 1
    assert counted > 40


def test_a_failure_has_the_identity_of_its_file(cat: Path) -> None:
    os.truncate(cat, 5000)
    result = outcome(Source(str(cat)), Small(), DIGESTED, nullcontext())
    assert identity(result) == Identity.of_file(cat.stat())
    assert identity(outcome(Source(f"{cat}.missing"), Small(), DIGESTED, nullcontext())) == UNKNOWN


def test_a_file_that_is_being_written_has_no_identity(cat: Path) -> None:
    class Meanwhile(Small):
        def __call__(self, image: Image.Image) -> np.ndarray:
            with open(cat, "ab") as stream:
                stream.write(b"more")
            return super().__call__(image)

    assert identity(outcome(Source(str(cat)), Meanwhile(), DIGESTED, nullcontext())) == UNKNOWN


def test_fetched_bytes_have_a_digest_and_their_validators(cat: Path) -> None:
    fetched = Fetched(Source("http://h/cat.jpg", "url"), cat.read_bytes(), Identity(etag='"7"'))
    digest = hashlib.sha256(cat.read_bytes()).digest()
    assert identity(outcome(fetched, Small(), DIGESTED, nullcontext())) == Identity(etag='"7"', digest=digest)


def test_an_image_that_crashes_its_decoder_has_an_identity(cat: Path) -> None:
    [result] = decode_alone([Source(str(cat))], Crash(), DIGESTED)
    assert isinstance(result, Failure)
    assert (result.code, result.identity) == ("decoder_crashed", Identity.of_file(cat.stat()))


class Crash:
    shape = (1,)
    dtype = "uint8"

    def __call__(self, image: Image.Image) -> np.ndarray:
        os.abort()
