"""Kept and decoded pixels are the same."""

import pickle
from pathlib import Path

import torch

from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits
from beitcli.records import Source
from beitcli.training.data.pixels import DecodedPixels, KeptPixels, PixelReader, read_all
from beitcli.training.recipes.scratch import ScratchPlan
from tests.training.shapes import draw_classes

PREPROCESSING = ScratchPlan("tiny", 16, 4, 1, 1, 1, 1e-3, 0, "fp32").preprocessing
READER = PixelReader(1, Decoding(), FetchLimits(), fast=False)


def test_kept_and_decoded_pixels_are_the_same(tmp_path: Path) -> None:
    draw_classes(tmp_path / "shapes", 5)
    paths = sorted(str(path) for path in tmp_path.rglob("*.png"))
    broken = Path(paths[3])
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    reported: list[int] = []
    with open(tmp_path / "pixels", "wb") as stream:
        reading = read_all([Source(path) for path in paths], PREPROCESSING, READER, stream, reported.append)
    assert sum(reported) == 10
    assert reading.readable == (0, 1, 2, 4, 5, 6, 7, 8, 9)
    assert [failure.source.location for failure in reading.failures] == [paths[3]]
    assert len(set(reading.digests)) == 9
    kept = KeptPixels(str(tmp_path / "pixels"), PREPROCESSING.shape)
    decoded = DecodedPixels([paths[number] for number in reading.readable], PREPROCESSING, Decoding())
    assert len(kept) == len(decoded) == 9
    assert torch.equal(kept[[8, 0, 3]], decoded[[8, 0, 3]])
    sent = pickle.dumps(kept)
    assert len(sent) < 500  # to a process that is spawned: not the pixels
    assert torch.equal(pickle.loads(sent)[[8, 0, 3]], decoded[[8, 0, 3]])
    Path(paths[0]).unlink()
    assert (decoded[[0]] == 128).all()
