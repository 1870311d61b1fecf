"""A training whose pixels are too many to be kept."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from beitcli.inputs.sources import Walk
from beitcli.training import preparation
from beitcli.training.examples import in_folders, split
from beitcli.training.preparation import Pictures
from beitcli.training.scratch import ScratchPlan
from beitcli.training.train import Machine, Training, read_pictures, train_model
from beitcli.training.workplace import Workplace
from tests.training.shapes import draw_classes
from tests.training.test_pixels import READER


def test_decoded_in_every_epoch_the_weights_are_those_of_kept_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split(in_folders(str(draw_classes(tmp_path / "shapes", 10)), Walk()), None, 0.2, seed=0)
    plan = ScratchPlan("tiny", 16, 4, 2, 8, 1, 1e-3, 0, "fp32")
    weights = []
    for name, most in (("kept", preparation.MOST_KEPT), ("decoded", 0)):
        monkeypatch.setattr(preparation, "MOST_KEPT", most)
        told: list[object] = []
        training = Training(plan, Pictures(parts, READER, 0), Workplace(str(tmp_path / name)), "")
        material = read_pictures(training, lambda _: None)
        train_model(training, material, Machine("cpu", "fp32", 2), told.append)
        assert len(told) == 3
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
