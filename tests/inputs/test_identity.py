"""A picture's identity is that of the very bytes that were read."""

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

DIGESTED = Decoding(seconds=0, digest=True)


def small(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((4, 4)))


def identity(answer: Outcome) -> Identity:
    return answer.identity if isinstance(answer, Failure) else answer[1]


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return Path(shutil.copy(SAMPLES / "cat.jpg", tmp_path))


def test_a_file_has_its_size_time_and_digest(cat: Path) -> None:
    status, digest = cat.stat(), hashlib.sha256(cat.read_bytes()).digest()
    answer = outcome(Source(str(cat)), small, DIGESTED, nullcontext())
    assert identity(answer) == Identity(size=status.st_size, mtime_ns=status.st_mtime_ns, digest=digest)
    assert identity(outcome(Source(str(cat)), small, Decoding(), nullcontext())).digest is None


def test_a_failure_says_which_version_failed(cat: Path) -> None:
    os.truncate(cat, 5000)
    answer = outcome(Source(str(cat)), small, DIGESTED, nullcontext())
    assert identity(answer) == Identity.of_file(cat.stat())
    assert identity(outcome(Source(f"{cat}.missing"), small, DIGESTED, nullcontext())) == UNKNOWN


def test_a_file_that_is_being_written_is_no_version_of_itself(cat: Path) -> None:
    def meanwhile(picture: Image.Image) -> np.ndarray:
        with open(cat, "ab") as stream:
            stream.write(b"more")
        return small(picture)

    assert identity(outcome(Source(str(cat)), meanwhile, DIGESTED, nullcontext())) == UNKNOWN


def test_fetched_bytes_have_a_digest_and_what_the_server_said(cat: Path) -> None:
    fetched = Fetched(Source("http://h/cat.jpg", "url"), cat.read_bytes(), Identity(etag='"7"'))
    digest = hashlib.sha256(cat.read_bytes()).digest()
    assert identity(outcome(fetched, small, DIGESTED, nullcontext())) == Identity(etag='"7"', digest=digest)


def test_a_picture_that_crashes_its_decoder_has_an_identity(cat: Path) -> None:
    [answer] = decode_alone([Source(str(cat))], Crash(), DIGESTED)
    assert isinstance(answer, Failure)
    assert (answer.code, answer.identity) == ("decoder_crashed", Identity.of_file(cat.stat()))


class Crash:
    shape = (1,)
    dtype = "uint8"

    def __call__(self, picture: Image.Image) -> np.ndarray:
        os.abort()
