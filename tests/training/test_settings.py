"""Unfinished fine-tunings: they go on with the base model that they began with, and no other."""

import json
import shutil
from pathlib import Path

import pytest

from beitcli.errors import UsageError
from beitcli.inputs.sources import Walk
from beitcli.model.checkpoint import open_checkpoint
from beitcli.training.data.examples import in_folders, split
from beitcli.training.data.preparation import SplitImages
from beitcli.training.recipes.finetune import FinetunePlan
from beitcli.training.train import Training, read_images
from beitcli.training.work_dir import WorkDir
from tests.training.data.test_pixels import READER
from tests.training.shapes import draw_classes


class Finetuning:
    """A fine-tuning of `base` that is begun and not finished."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base = base
        self.run = folder / "model.part" / "run.json"
        images = split(in_folders(str(draw_classes(folder / "shapes", 3)), Walk()), None, 0.3, seed=0)
        self._images, self._work = SplitImages(images, READER, 0), WorkDir(str(folder / "model"))
        self.go_on()

    def go_on(self, model: Path | None = None) -> None:
        checkpoint = open_checkpoint(str(model or self.base), None)
        plan = FinetunePlan(checkpoint, None, 1, 2, 1, rate=None, checkpoint_gradients=False, seed=0, dtype="fp32")
        read_images(Training(plan, self._images, self._work, ""), lambda _: None)


@pytest.fixture
def begun(tiny_beit: Path, tmp_path: Path) -> Finetuning:
    return Finetuning(shutil.copytree(tiny_beit, tmp_path / "base"), tmp_path)


def test_what_another_way_of_training_has_begun_is_called_that(begun: Finetuning) -> None:
    """A probe keeps neither the version nor the other settings, and none of them may stand for the way."""
    begun.run.write_text(json.dumps({"settings": {"way": "a linear probe"}, "prepared": {}}))
    with pytest.raises(UsageError, match=r"with another way: a linear probe, not --finetune$"):
        begun.go_on()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_another_base_model_of_the_same_name_is_another_training(begun: Finetuning, name: str) -> None:
    path = begun.base / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?" if name.endswith(".safetensors") else content.rstrip() + b"\n\n")
    with pytest.raises(UsageError, match=r"training of `.*/base`, whose files have changed") as error:
        begun.go_on()
    assert error.value.hint == "bring them back to go on, or delete that folder to start over"
    path.write_bytes(content)
    begun.go_on()


def test_the_same_base_model_may_stand_elsewhere(begun: Finetuning, tmp_path: Path) -> None:
    begun.go_on(shutil.copytree(begun.base, tmp_path / "moved"))
    other = shutil.copytree(begun.base, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(UsageError, match=r"with another model: .*/base, not .*/other"):
        begun.go_on(other)


def test_a_training_begun_before_digests_were_kept_is_refused_with_the_reason(begun: Finetuning) -> None:
    run = json.loads(begun.run.read_text())
    run["settings"]["model"] = str(begun.base)
    begun.run.write_text(json.dumps(run))
    with pytest.raises(
        UsageError, match="of an earlier version of beit, which did not keep a digest of the base"
    ) as error:
        begun.go_on()
    assert error.value.hint == "finish it with that version, or delete that folder to start over"
