"""Training curves: what is written on the way, and what a resumed training makes of it."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from beitcli import signals
from beitcli.inputs.sources import Walk
from beitcli.training import curve
from beitcli.training.curve import CurveFile
from beitcli.training.data.examples import in_folders, split
from beitcli.training.data.preparation import SplitImages
from beitcli.training.loop import TrainingProgress
from beitcli.training.recipes.scratch import ScratchPlan
from beitcli.training.train import Training, read_images, train_model
from beitcli.training.work_dir import WorkDir
from tests.training.data.test_pixels import READER
from tests.training.shapes import draw_classes
from tests.training.test_train import PLAN, RESOURCES, VALIDATOR, run


@pytest.fixture
def training(tmp_path: Path) -> Training[ScratchPlan]:
    parts = split(in_folders(str(draw_classes(tmp_path / "shapes", 10)), Walk()), None, 0.2, seed=0)
    plan = replace(PLAN, epochs=6)
    return Training(plan, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / "model")), "")


def points(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_loss_rate_and_validation_accuracy_by_step(training: Training[ScratchPlan], tmp_path: Path) -> None:
    run(training)
    found = points(tmp_path / "model")
    assert [(point["step"], point["epoch"]) for point in found if "loss" in point] == [(10, 5.0), (12, 6.0)]
    rates = [point["rate"] for point in found if "rate" in point]
    assert PLAN.rate > rates[0] > rates[1] == 0
    # 4 images validate 16 in training: every second epoch costs less than a twentieth
    assert [point["step"] for point in found if "accuracy" in point] == [4, 8, 12]
    assert all(point["accuracy"] in (0, 0.25, 0.5, 0.75, 1) for point in found if "accuracy" in point)
    with Image.open(tmp_path / "model" / "training.png") as drawn:
        assert drawn.format == "PNG"
    (tmp_path / "model").rename(tmp_path / "validated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve, "MAX_SHARE", 1e-9)  # no validation on the way
        run(training)
    assert [point["step"] for point in points(tmp_path / "model") if "accuracy" in point] == [12]
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("validated", "model"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_resumed_training_continues_its_curve(tmp_path: Path) -> None:
    file = CurveFile(str(tmp_path / "training.jsonl"))
    file.cut(0)
    for step in (10, 20, 30):
        file.add(step=step, epoch=step / 10, loss=1 / step, rate=0.1)
    with open(file.path, "a") as stream:
        stream.write('{"step": 40, "lo')
    file.cut(20)
    file.add(step=30, epoch=3.0, loss=None, rate=0.1)
    assert [(point["step"], point["loss"]) for point in points(tmp_path)] == [(10, 0.1), (20, 0.05), (30, None)]


@pytest.mark.slow
def test_a_training_stopped_while_it_validates_goes_on_from_that_step(
    training: Training[ScratchPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(now: TrainingProgress) -> None:
        if now.step == 4:  # between the checkpoints' own look at requests and the validation
            monkeypatch.setattr(signals._Request, "received", signal.SIGTERM)

    with pytest.raises(signals.Stopped):
        train_model(training, read_images(training, lambda _: None), RESOURCES, stop, VALIDATOR)
    monkeypatch.undo()
    signal.setitimer(signal.ITIMER_REAL, 0)  # the request gave the process five seconds to end
    assert (tmp_path / "model.part" / "checkpoint-4").is_dir()
    run(training)
    found = points(tmp_path / "model")
    assert [point["step"] for point in found] == [8, 10, 12, 12]
