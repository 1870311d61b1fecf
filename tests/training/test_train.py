"""Trainings in this process: pixels that are not kept, and early ends."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from beitcli.errors import BeitError, DeviceError, OutputError
from beitcli.inputs.sources import Walk
from beitcli.jobs.observer import Silent
from beitcli.jobs.requests import Compute, Limits
from beitcli.jobs.validation import Validator
from beitcli.model.runtime import Runtime
from beitcli.training.data import preparation
from beitcli.training.data.examples import Split, in_folders, split
from beitcli.training.data.pixels import MAX_KEPT, DecodedPixels
from beitcli.training.data.preparation import SplitImages
from beitcli.training.loop import TrainingProgress, device_errors
from beitcli.training.recipes.scratch import ScratchPlan
from beitcli.training.train import Resources, Training, read_images, train_model
from beitcli.training.work_dir import WorkDir
from tests.training.data.test_pixels import READER
from tests.training.shapes import draw_classes

PLAN = ScratchPlan("tiny", 16, 4, 2, 8, 1, 1e-3, 0, "fp32")
RESOURCES = Resources(Runtime("cpu", "fp32"), 2)
VALIDATOR = Validator(Limits(), Compute(workers=0, device="cpu", dtype="fp32"), Silent())


@pytest.fixture
def parts(tmp_path: Path) -> Split:
    return split(in_folders(str(draw_classes(tmp_path / "shapes", 10)), Walk()), None, 0.2, seed=0)


def run(training: Training[ScratchPlan]) -> list[TrainingProgress]:
    """Trains, and returns the progress reported for every step but the first."""
    reported: list[TrainingProgress] = []
    train_model(training, read_images(training, lambda _: None), RESOURCES, reported.append, VALIDATOR)
    return reported


@pytest.mark.slow
def test_decoded_and_kept_pixels_give_the_same_weights(
    parts: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for name, max_kept in (("kept", MAX_KEPT), ("decoded", 0)):
        monkeypatch.setattr(preparation, "MAX_KEPT", max_kept)
        assert len(run(Training(PLAN, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / name)), ""))) == 3
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_pixels_left_by_a_killed_run_are_not_reused(
    parts: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(PLAN, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / "model")), "")
    training.work.start()
    (tmp_path / "model.part" / "training.pixels").write_bytes(bytes(10))
    monkeypatch.setattr(preparation, "MAX_KEPT", 0)
    assert isinstance(read_images(training, lambda _: None).training.pixels, DecodedPixels)


@pytest.mark.slow
def test_checkpoints_are_kept_until_the_model_is_complete(parts: Split, tmp_path: Path) -> None:
    training = Training(PLAN, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / "model")), "")
    obstacle = tmp_path / "model.part" / "model" / "model.safetensors"
    training.work.start()
    obstacle.mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot write weights: Is a directory$") as error:
        run(training)
    assert error.value.hint is None
    obstacle.rmdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "in the way").touch()
    with pytest.raises(OutputError):
        run(training)
    (tmp_path / "model" / "in the way").unlink()
    assert run(training) == []
    undisturbed = Training(PLAN, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / "undisturbed")), "")
    assert len(run(undisturbed)) == 3
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "undisturbed"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", [pytest.param("optimizer.pt", marks=pytest.mark.slow), "average.pt.part"])
def test_a_full_disk_is_called_that_in_our_words(parts: Split, tmp_path: Path, name: str) -> None:
    training = Training(PLAN, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / "model")), "")
    data = read_images(training, lambda _: None)

    def fill(now: TrainingProgress) -> None:
        if now.step == now.steps - 1:
            checkpoint = tmp_path / "model.part" / f"checkpoint-{now.steps}"
            checkpoint.mkdir()
            (checkpoint / name).symlink_to("/dev/full")

    with pytest.raises(OutputError) as error:
        train_model(training, data, RESOURCES, fill, VALIDATOR)
    assert str(error.value) == f"cannot write a checkpoint in `{tmp_path}/model.part`: no room, or the disk fails"
    assert error.value.hint == "make room, then run it again"


@pytest.mark.parametrize(("epochs", "step"), [pytest.param(20, 10, marks=pytest.mark.slow), (2, 4)])
def test_a_diverging_training_stops(parts: Split, tmp_path: Path, epochs: int, step: int) -> None:
    plan = ScratchPlan("tiny", 16, 4, epochs, 8, 1, 1e30, 0, "fp32")
    with pytest.raises(BeitError, match=f"the loss is nan at step {step}") as error:
        run(Training(plan, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / "model")), ""))
    assert error.value.hint == f"delete `{tmp_path}/model.part`, then a smaller `lr=`"


def test_a_dead_worker_is_reported(parts: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "MAX_KEPT", 0)
    plan = ScratchPlan("tiny", 16, 4, 50, 8, 1, 1e-3, 0, "fp32")
    training = Training(plan, SplitImages(parts, READER, 0), WorkDir(str(tmp_path / "model")), "")
    data = read_images(training, lambda _: None)

    def kill(_: TrainingProgress) -> None:
        for worker in multiprocessing.active_children():  # none at the end of an epoch
            worker.kill()

    with pytest.raises(DeviceError, match="a DataLoader worker has died"):
        train_model(training, data, RESOURCES, kill, VALIDATOR)
    for child in multiprocessing.active_children():
        child.join(10)
        assert not child.is_alive()


def test_too_little_memory_is_reported() -> None:
    with pytest.raises(DeviceError, match="cpu has too little memory"), device_errors("cpu", "model.part"):
        torch.empty(1 << 50)
