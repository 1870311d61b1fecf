"""`beit train` as a process: bad input, fine-tuning, and training from scratch."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from beitcli.training.work_dir import MODEL_FILES
from tests.training.shapes import draw_classes

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]

SMALL = ("--from-scratch", "tiny", "--image-size", "16", "-b", "16", "-j", "1")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_classes(tmp_path / "shapes", 20)


def bad_input(folder: Path) -> dict[str, tuple[list[object], str]]:
    """Cases of bad input: the arguments, and a text that the error contains."""
    good = draw_classes(folder / "good", 3)
    one = draw_classes(folder / "one", 3, colours=("red",))
    case = draw_classes(folder / "case", 3, colours=("red", "Red", "blue"))
    empty = draw_classes(folder / "empty", 3)
    (empty / "green").mkdir()
    broken = draw_classes(folder / "broken", 3)
    (broken / "red" / "000.png").write_bytes(b"nothing")
    alien = draw_classes(folder / "alien", 3, colours=("green",))
    single = draw_classes(folder / "single", 1)
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    (folder / "labels.csv").write_text("path,label\n")
    return {
        "both ways": ([good, "--finetune", *SMALL], "--from-scratch"),
        "no images": ([*SMALL], "--labels"),
        "folder and table": ([good, "--labels", folder / "labels.csv", *SMALL], "--labels"),
        "an empty table": (["--labels", folder / "labels.csv", *SMALL], "labels.csv"),
        "one class": ([one, *SMALL], "`red`"),
        "same but for case": ([case, *SMALL], "`Red` and `red`"),
        "an empty class": ([empty, *SMALL], "empty/green"),
        "a broken image": ([broken, *SMALL], "1 images cannot be read"),
        "a class without training": ([good, "--val", alien, *SMALL], "`green`"),
        "nothing to hold out": ([single, *SMALL], "--val"),
        "no folder": ([folder / "nowhere", *SMALL], "nowhere"),
        "a full output": ([good, *SMALL, "--out", folder / "full"], "exists already"),
        "no model to replace": ([good, *SMALL, "--replace", "--out", folder / "full"], "holds `file`"),
        "patches that do not fit": ([good, *SMALL, "--patch-size", "5"], "--image-size 16"),
        "patches of a model": ([good, "--finetune", "-m", "demo", "--patch-size", "4"], "--patch-size"),
        "a size that does not fit": ([good, "--finetune", "-m", "demo", "--image-size", "33"], "--image-size 33"),
        "half precision on a cpu": ([good, *SMALL, "--dtype", "fp16", "--device", "cpu"], "--dtype fp16"),
    }


@pytest.mark.slow
def test_bad_input_is_a_usage_error_that_names_it(beit: Beit, tmp_path: Path) -> None:
    for what, (arguments, named) in bad_input(tmp_path).items():
        run = beit("train", *arguments, *(() if "--out" in arguments else ("--out", "model")))
        assert run.returncode == 2, (what, run.stderr)
        message = run.stderr.decode()
        assert named in message, (what, message)
        assert "hint: " in message or " a multiple of " in message, what
        assert "Traceback" not in message
        assert not (tmp_path / "model").exists() and not (tmp_path / "model.part").exists(), what


@pytest.mark.slow
def test_existing_folders_are_never_removed(beit: Beit, images: Path, tmp_path: Path) -> None:
    (tmp_path / "m.part").mkdir()
    (tmp_path / "m.part" / "precious").touch()
    (tmp_path / "n.part").touch()
    (tmp_path / "d.part").mkdir()
    (tmp_path / "d.part" / "training-of-beit").touch()
    (tmp_path / "d.part" / "run.json").write_text("{")
    for way in (("-m", "demo"), SMALL):
        for name, words in [
            ("m", "no training of beit"),
            ("n", "no training of beit"),
            ("d", "is damaged"),
            ("", "--out"),
        ]:
            process = beit("train", images, *way, "-o", name and tmp_path / name)
            assert process.returncode in (1, 2)
            assert words in process.stderr.decode()
            assert b"Traceback" not in process.stderr
    taken = beit("train", images, *SMALL, "-o", tmp_path / "m.part", light=True)
    assert b"exists already" in taken.stderr and b"replace a model by --replace" in taken.stderr
    assert (tmp_path / "m.part" / "precious").exists()
    assert (tmp_path / "n.part").is_file()


@pytest.mark.slow
def test_a_class_may_have_a_name_that_is_not_utf8(beit: Beit, images: Path, tmp_path: Path) -> None:
    os.rename(images / "red", os.fsencode(images) + b"/r\xfc\x1bd")
    for name, way in (("probe", ("-m", "demo")), ("new", (*SMALL, "--epochs", "1"))):
        assert beit("train", images, *way, "-o", tmp_path / name).returncode == 0
        assert "r\\xfc\\x1bd" in (tmp_path / name / "README.md").read_text()
        modes = {path.stat().st_mode for path in (tmp_path / name).iterdir()}
        assert len(modes) == 1  # weights and config have the same permissions


def test_links_are_followed_with_follow(beit: Beit, images: Path, tmp_path: Path) -> None:
    shutil.move(images / "red", tmp_path / "red")
    (images / "red").symlink_to(tmp_path / "red")
    process = beit("train", images, "-m", "demo", "-o", tmp_path / "m")
    assert (process.returncode, b"1 link (--follow" in process.stderr) == (2, True)
    assert beit("train", images, "-m", "demo", "-L", "-o", tmp_path / "m").returncode == 0


def test_a_gpu_that_the_environment_does_not_show_is_refused(
    beit: Beit, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    run = beit("train", images, *SMALL, "--device", "cuda:1", "--out", "model", light=True)
    assert run.returncode == 2 and b"CUDA_VISIBLE_DEVICES is `3`" in run.stderr and b"cuda:0 is GPU 3" in run.stderr


def test_without_accelerate_the_extra_is_named_first(tmp_path: Path) -> None:
    program = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'accelerate' else find(name, *more)\n"
        "sys.argv = ['beit', 'train', 'nowhere', '--finetune', '--out', 'model']\n"
        "from beitcli.cli import main\n"
        "sys.exit(main())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2
    assert "beitcli[train]" in run.stderr


@pytest.mark.slow
def test_from_scratch_learns_shapes_and_makes_an_ordinary_checkpoint(beit: Beit, images: Path, tmp_path: Path) -> None:
    overlapping = tmp_path / "val"
    draw_classes(overlapping, 10, seed=1)
    shutil.copy(images / "red" / "003.png", overlapping / "red" / "again.png")
    (images / "red" / "broken.png").write_bytes(b"nothing")
    run = beit(
        *("train", images, "--val", overlapping, *SMALL, "--epochs", "60", "--max-errors", "1", "--out", "model"),
        timeout=300,
    )
    report = run.stderr.decode()
    assert run.returncode == 0, report
    assert run.stdout == b""
    assert f"left out: {images}/red/broken.png: not_an_image" in report
    assert f"{overlapping}/red/again.png, {images}/red/003.png" in report
    model = tmp_path / "model"
    assert set(os.listdir(model)) == MODEL_FILES - {"tokenizer.safetensors"}
    assert not (tmp_path / "model.part").exists()
    card = (model / "README.md").read_text()
    assert "images of which 1 are training images, too" in card
    assert "on 21 images" in card and "trained on 40 images" in card and "beit train" in card and "Seed 0" in card
    assert "| top-1 | 100.00 % |" in card
    assert_both_load_it(model, overlapping)


def assert_both_load_it(model: Path, images: Path) -> None:
    """Check that transformers and `beit` compute the same logits with a saved model."""
    from transformers import AutoModelForImageClassification
    from transformers.models.beit.image_processing_pil_beit import BeitImageProcessorPil

    from beitcli.model.checkpoint import open_checkpoint
    from beitcli.model.network import Beit, PixelScale
    from beitcli.model.preprocessing import checkpoint_preprocessing

    opened = [Image.open(path).convert("RGB") for path in sorted(images.rglob("*.png"))]
    checkpoint = open_checkpoint(str(model), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    network = Beit(
        checkpoint.config,
        checkpoint.tensors(),
        preprocessing.size,
        PixelScale(preprocessing.factor, preprocessing.mean, preprocessing.std),
    )
    reference, loading = AutoModelForImageClassification.from_pretrained(model, output_loading_info=True)
    assert not any(loading.values())
    inputs = BeitImageProcessorPil.from_pretrained(model)(images=opened, return_tensors="pt")
    with torch.no_grad():
        ours = network.eval()(torch.from_numpy(np.stack([preprocessing(image) for image in opened])))
        theirs = reference.eval()(**inputs).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_finetuning_the_demo_model_on_other_classes(beit: Beit, images: Path, tmp_path: Path) -> None:
    run = beit(
        *("train", images, "--finetune", "-m", "demo", "--epochs", "8", "-b", "4", "--accumulate", "2"),
        *("--image-size", "40", "--checkpoint-gradients", "--out", "model", "-j", "1"),
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert "| top-1 | 100.00 % |" in (tmp_path / "model" / "README.md").read_text()
    assert_both_load_it(tmp_path / "model", images)
    process = beit("classify", images / "red" / "000.png", "-m", "./model", "-k", "1", "-q")
    assert b",ok,red,1," in process.stdout


def test_a_table_of_labels_is_trained_on(beit: Beit, images: Path, tmp_path: Path) -> None:
    rows = [f"{path.relative_to(tmp_path)}\t{path.parent.name}" for path in sorted(images.rglob("*.png"))]
    (tmp_path / "labels.tsv").write_text("\n".join(["path\tlabel", *rows]))
    run = beit(
        "train",
        "--labels",
        "labels.tsv",
        *SMALL,
        *("--epochs", "1", "--val-share", "0.25", "--dtype", "bf16", "--out", "model", "-q"),
    )
    assert run.returncode == 0 and run.stderr == b"", run.stderr
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    validated = list(csv.DictReader((tmp_path / "model" / "validation.csv").read_text().splitlines()))
    (tmp_path / "val.csv").write_text("".join(f"{row['path']},{row['true_label']}\n" for row in validated))
    assert beit("eval", "--labels", "val.csv", "-m", "./model", "--dtype", "bf16", "--json", "val.json").returncode == 0
    accuracy = json.loads((tmp_path / "val.json").read_text())["figures"]["top1"]["value"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "on 10 images that it was not trained on" in card and "in bf16 on " in card
    assert f"| top-1 | {100 * accuracy:.2f} % |" in card
    everything = beit("eval", images, "-m", "./model", "-q")
    assert everything.stdout.startswith(b"`./model` has learnt from 30 of these 40 images: ")


def test_options_that_a_training_ignores_are_refused(beit: Beit, images: Path) -> None:
    for options, word in (("-m", "demo"), "--model"), (("--revision", "main"), "--revision"):
        run = beit("train", images, *SMALL, *options, "--out", "model", light=True)
        assert run.returncode == 2 and word in run.stderr.decode()


def test_weights_that_cannot_be_trained_are_found_before_the_images_are_read(
    beit: Beit, images: Path, tiny_beit: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(tiny_beit, tmp_path / "broken") / "model.safetensors"
    name = "beit.encoder.layer.1.output.dense.bias"
    save_file({**load_file(path), name: torch.full((32,), torch.inf)}, path, metadata={"format": "pt"})
    run = beit("train", images, "--finetune", "-m", "./broken", "--out", "model")
    assert run.returncode == 1 and f"the weights are not finite: `{name}`".encode() in run.stderr
    path.write_bytes(b"no weights")
    run = beit("train", images, "--finetune", "-m", "./broken", "--out", "model")
    assert run.returncode == 1 and b"cannot read the weights" in run.stderr
    assert not (tmp_path / "model.part").exists()


def test_a_model_is_finetuned_at_the_size_of_its_processor(
    beit: Beit, images: Path, tiny_beit: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_beit, tmp_path / "larger")
    processor = json.loads((model / "preprocessor_config.json").read_text())
    sides = {"height": 48, "width": 48}
    (model / "preprocessor_config.json").write_text(json.dumps(processor | {"size": sides, "crop_size": sides}))
    run = beit(
        *("train", images, "--finetune", "-m", "./larger", "--epochs", "1", "-b", "64", "-j", "1", "--out", "model")
    )
    assert run.returncode == 0, run.stderr
    assert "batches of 36: AdamW" in (tmp_path / "model" / "README.md").read_text()  # as many as there are
    assert json.loads((tmp_path / "model" / "config.json").read_text())["image_size"] == 48
    assert_both_load_it(tmp_path / "model", images)
