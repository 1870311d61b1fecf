"""Digests of the images that a model has learnt from."""

from hashlib import sha256
from pathlib import Path

from beitcli.training.digests import DIGESTS, count_learnt, write_digests


def test_digests_take_eight_bytes_an_image_and_recognise_every_one(tmp_path: Path) -> None:
    images = [sha256(b"%d" % number).digest() for number in range(1000)]
    write_digests([*images, images[3]], str(tmp_path))
    path = tmp_path / DIGESTS
    assert path.stat().st_size == 8000
    others = [sha256(b"other %d" % number).digest() for number in range(500)]
    assert count_learnt(str(path), [*images[:7], images[0], *others]) == 8
    assert count_learnt(str(path), []) == 0
    write_digests([], str(tmp_path))
    assert count_learnt(str(path), images) == 0
