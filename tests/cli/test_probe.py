"""Linear probes by `beit train`, as a process: models, inputs, and usage errors."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.cli.batches import counts, grow, stored_results, wait_for_results
from tests.cli.test_signals import start
from tests.conftest import SAMPLES
from tests.training.shapes import draw_classes

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]
COLOURS = ("blue", "green", "red")
DEMO = ("-m", "demo", "--dtype", "fp32", "-j", "1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes: shapes of three colours, and parts of a photograph."""
    folder = draw_classes(tmp_path_factory.mktemp("probe") / "images", 14, COLOURS)
    (folder / "boats").mkdir()
    random = np.random.default_rng(5)
    with Image.open(SAMPLES / "boats.jpg") as image:
        for number in range(14):
            side = int(min(image.size) * random.uniform(0.5, 0.9))
            left, top = (int(random.integers(0, length - side)) for length in image.size)
            image.crop((left, top, left + side, top + side)).resize((64, 64)).save(folder / f"boats/{number}.png")
    return folder


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_classes(tmp_path_factory.mktemp("probe") / "unseen", 5, COLOURS, seed=9)


def cls_pooled(folder: Path, tiny_beit: Path) -> Path:
    """A BEiT that classifies by its first state, with a layer norm of its own on all, and absolute positions."""
    from transformers import BeitConfig, BeitForImageClassification

    torch.manual_seed(3)
    config = json.loads((tiny_beit / "config.json").read_text())
    config |= {"use_mean_pooling": False, "use_absolute_position_embeddings": True}
    network = BeitForImageClassification(BeitConfig.from_dict(config))
    for name, parameter in network.named_parameters():
        parameter.data = torch.randn_like(parameter) * 0.3 + ("norm" in name and name.endswith("weight"))
    network.save_pretrained(folder)
    shutil.copy(tiny_beit / "preprocessor_config.json", folder)
    return folder


def by_transformers(model: Path, paths: list[Path]) -> torch.Tensor:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    network, loading = AutoModelForImageClassification.from_pretrained(model, output_loading_info=True)
    assert not any(loading.values())
    images = [Image.open(path).convert("RGB") for path in paths]
    inputs = AutoImageProcessor.from_pretrained(model, backend="pil")(images=images, return_tensors="pt")
    with torch.no_grad():
        logits: torch.Tensor = network(**inputs).logits
    return logits


def by_us(model: Path, paths: list[Path]) -> torch.Tensor:
    from beitcli.model.checkpoint import open_checkpoint
    from beitcli.model.network import Beit, PixelScale
    from beitcli.model.preprocessing import checkpoint_preprocessing

    checkpoint = open_checkpoint(str(model), None)
    preprocessing = checkpoint_preprocessing(checkpoint.processor, None)
    scale = PixelScale(preprocessing.factor, preprocessing.mean, preprocessing.std)
    network = Beit(checkpoint.config, checkpoint.tensors(), preprocessing.size, scale).eval()
    pixels = np.stack([preprocessing(Image.open(path).convert("RGB")) for path in paths])
    with torch.inference_mode():
        logits: torch.Tensor = network(torch.from_numpy(pixels))
    return logits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("demo", ()),
        ("demo", ("--pool", "cls")),
        ("demo", ("--image-size", "48")),
        ("cls", ("--pool", "cls")),
        ("cls", ("--pool", "mean")),
        ("cls", ("--pool", "mean", "--image-size", "48")),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value) or "mean",
)
def test_it_separates_the_classes_and_transformers_agrees(
    source: str, options: tuple[str, ...], beit: Beit, images: Path, unseen: Path, tiny_beit: Path, tmp_path: Path
) -> None:
    model = "demo" if source == "demo" else cls_pooled(tmp_path / "source", tiny_beit)
    run = beit("train", images, *DEMO, "-m", model, *options, "--out", "model")
    assert run.returncode == 0, run.stderr
    assert run.stdout == b""
    made = tmp_path / "model"
    files = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert sorted(os.listdir(made)) == [*files, "training-digests", "validation.csv"]
    assert sorted(os.listdir(tmp_path)) == ["model", *(["source"] if source == "cls" else [])]
    assert json.loads((made / "config.json").read_text())["dtype"] == "float32"  # though the demo's weights are halves
    assert (made / "model.safetensors").stat().st_mode == (made / "config.json").stat().st_mode
    paths = sorted(unseen.rglob("*.png"))
    logits, theirs = by_us(made, paths), by_transformers(made, paths)
    assert (logits - theirs).abs().max() < 1e-4
    rows = csv.DictReader(io.StringIO(beit("classify", unseen, *DEMO, "-m", made, "-q").stdout.decode()))
    labels = {row["source"]: row["label"] for row in rows}
    classes = sorted(["boats", *COLOURS])
    assert [labels[str(path)] for path in paths] == [classes[best] for best in logits.argmax(1).tolist()]
    if source == "demo":
        assert sum(labels[str(path)] == path.parent.name for path in paths) >= len(paths) - 1
        accuracy = float(run.stderr.decode().splitlines()[-1].partition(" %")[0])
        assert accuracy > 90


@pytest.mark.slow
def test_the_card_describes_the_training(
    beit: Beit, images: Path, unseen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEIT_MODEL", "demo")
    run = beit("train", images, *DEMO[2:], "--val", unseen, "--seed", "4", "--out", "model")
    assert run.returncode == 0, run.stderr
    card = (tmp_path / "model" / "README.md").read_text()
    for text in (
        "on 15 images",
        "trained on 56 images",
        "--seed 4",
        "--model demo",
        "Seed 4.",
        "blue, boats",
        "scikit-learn 1.",
    ):
        assert text in card
    assert card.count(" % |") == 11  # one per strength, and the best
    assert b" of 15 images correct at a strength of " in run.stderr
    assert b"the demo model" not in run.stderr  # it is not what is used in the end


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes(beit: Beit, images: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert beit("train", images, *DEMO, "--out", name).returncode == 0
    first, second = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    source = load_file(Path(__file__).parent.parent.parent / "beitcli" / "demo" / "model.safetensors")
    made = load_file(first)
    assert made.keys() == source.keys()
    assert all(torch.equal(made[name], source[name]) for name in source if not name.startswith("classifier."))
    assert made["classifier.weight"].dtype == torch.float32


def test_a_class_of_one_trains_and_max_errors_leaves_a_broken_image_out(
    beit: Beit, images: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(images, tmp_path / "own")
    (own / "cat").mkdir()
    shutil.copy(SAMPLES / "cat.jpg", own / "cat")
    (own / "red" / "half.png").write_bytes((own / "red" / "000.png").read_bytes()[:90])
    for number in range(3):
        shutil.copy(own / "red" / "000.png", own / "red" / f"again{number}.png")
    run = beit("train", own, *DEMO, "--max-errors", "1", "--out", "model")
    assert run.returncode == 0, run.stderr
    assert f"left out: {own}/red/half.png: truncated".encode() in run.stderr
    assert b" of 59 images correct" in run.stderr
    assert b" classes have no validation image, such as cat" in run.stderr
    card = (tmp_path / "model" / "README.md").read_text()
    assert "trained on 60 images" in card and re.search(r", without any of 1 of the [3-5] classes; ", card)
    process = beit("classify", SAMPLES / "cat.jpg", *DEMO, "-m", "./model", "-k", "1", "-q")
    assert b",ok,cat," in process.stdout


@pytest.mark.slow
def test_the_overlap_of_training_and_validation_is_named(
    beit: Beit, images: Path, unseen: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(unseen, tmp_path / "own")
    shutil.copy(images / "red" / "003.png", own / "red" / "again.png")
    run = beit("train", images, *DEMO, "--val", own, "--out", "model")
    assert run.returncode == 0, run.stderr
    assert f"{own}/red/again.png, {images}/red/003.png".encode() in run.stderr


def bad_input(folder: Path) -> dict[str, tuple[list[object], str]]:
    """Cases of bad input: the arguments, and a text that the error contains."""
    (folder / "link").symlink_to(folder / "elsewhere")
    (folder / "elsewhere").mkdir()
    good = draw_classes(folder / "good", 2)
    broken = draw_classes(folder / "broken", 2)
    (broken / "red" / "000.png").write_bytes(b"nothing")
    lost = draw_classes(folder / "lost", 2)
    for path in (lost / "red").iterdir():
        path.write_bytes(b"nothing")
    other = draw_classes(folder / "other", 2)
    copied = draw_classes(folder / "copied", 1)
    for name in ("blue", "red"):
        shutil.copy(copied / name / "000.png", copied / name / "copy.png")
    empty = draw_classes(folder / "empty", 2)
    (empty / "green").mkdir()
    begun = folder / "begun.part"
    begun.mkdir()
    (begun / "training-of-beit").touch()
    (begun / "run.json").write_text(json.dumps({"settings": {"way": "--finetune"}, "prepared": {}}))
    return {
        "one class": ([draw_classes(folder / "one", 2, ("red",))], "`red`"),
        "same but for case": ([draw_classes(folder / "case", 2, ("red", "Red"))], "`Red` and `red`"),
        "an empty class": ([empty], "empty/green"),
        "a broken image": ([broken], "1 images cannot be read"),
        "a lost class": ([lost, "--max-errors", "2"], "the class `red` has no readable image"),
        "one image a class": ([draw_classes(folder / "single", 1)], "--val"),
        "one image a class and its copy": ([copied], "no class has two different images"),
        "a class without training": ([good, "--val", draw_classes(folder / "alien", 1, ("green",))], "`green`"),
        "a size that does not fit": ([good, "--image-size", "33"], "--image-size 33"),
        "another way's option": ([good, "--epochs", "3"], "--epochs"),
        "another way's pool": ([good, "--finetune", "--pool", "cls"], "--pool"),
        "both validations": ([good, "--val", good, "--val-share", "0.5"], "--val-share"),
        "nothing to walk": (["--labels", folder / "t.csv", "--ext", "png"], "nothing is walked"),
        "a link": ([good, "--out", folder / "link"], "link` is a link"),
        "among the classes": ([good, "--out", good / "model"], "is in a folder of the images"),
        "among the validated": ([good, "--val", other, "--out", other / "model"], "is in a folder of the images"),
        "where we are": ([good, "--out", "."], "names no folder"),
        "above us": ([good, "--out", f"{folder}/good/.."], "names no folder"),
        "an unfinished training": ([good, "--out", folder / "begun"], "another way: --finetune"),
    }


@pytest.mark.slow
def test_bad_input_is_a_usage_error_that_names_it(beit: Beit, tmp_path: Path) -> None:
    for what, (arguments, named) in bad_input(tmp_path).items():
        run = beit("train", *arguments, *DEMO, *(() if "--out" in arguments else ("--out", "model")))
        message = run.stderr.decode()
        assert run.returncode == 2, (what, message)
        assert named in message, (what, message)
        assert "Traceback" not in message
        assert not (tmp_path / "model").exists(), what
        was_read = what in ("a broken image", "a lost class", "one image a class and its copy")
        assert (tmp_path / "model.part").exists() == was_read, what
        shutil.rmtree(tmp_path / "model.part", ignore_errors=True)
    assert (tmp_path / "begun.part" / "run.json").exists()


def test_what_is_no_beit_is_refused(beit: Beit, images: Path, tiny_beit: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_beit / "config.json").read_text()) | {"model_type": "vit"}
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config))
    run = beit("train", images, "-m", "./vit", "--out", "model")
    assert run.returncode == 2
    assert b"no BEiT" in run.stderr


def test_broken_images_cost_no_features(beit: Beit, images: Path, tmp_path: Path) -> None:
    own = shutil.copytree(images, tmp_path / "own")
    for name in ("one.png", "two.png"):
        (own / "red" / name).write_bytes(b"no image")
    command = ("train", own, *DEMO, "--out", "model")
    first = beit(*command, "--max-errors", "1")
    assert first.returncode == 2
    assert b"2 images cannot be read, and --max-errors allows 1" in first.stderr
    assert all(f"left out: {own}/red/{name}".encode() in first.stderr for name in ("one.png", "two.png"))
    (own / "red" / "one.png").unlink()
    second = beit(*command, "--max-errors", "1")
    assert second.returncode == 0, second.stderr
    assert counts(second.stderr.decode()) == (57, 56, 0, 0, 1)
    assert sorted(os.listdir(tmp_path)) == ["model", "own"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_stopped_it_leaves_no_model_and_goes_on(
    ending: signal.Signals, beit: Beit, images: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(images, tmp_path / "own")
    for label in ("blue", "red"):
        grow(own / label, [f"noise{number:03}.png" for number in range(100)], seed=len(label))
    command = ("train", own, *DEMO, "-b", "4", "--out")
    process = start(*command, "model", cwd=tmp_path)
    wait_for_results(process, tmp_path / "model.part" / "features.ledger", more_than=7)
    process.send_signal(ending)
    process.communicate(timeout=60)
    assert process.returncode == -ending
    assert not (tmp_path / "model").exists()
    done = stored_results(tmp_path / "model.part" / "features.ledger")
    assert 8 <= done < 256
    again = beit(*command, "model")
    assert again.returncode == 0, again.stderr
    assert counts(again.stderr.decode())[:3] == (256, done, 256 - done)
    assert beit(*command, "undisturbed").returncode == 0
    whole, ours = (tmp_path / name / "model.safetensors" for name in ("undisturbed", "model"))
    assert whole.read_bytes() == ours.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["model", "own", "undisturbed"]


def test_images_are_found_and_read_as_elsewhere(beit: Beit, images: Path, tmp_path: Path) -> None:
    own = shutil.copytree(images, tmp_path / "own")
    shutil.copy(SAMPLES / "cat.jpg", own / "red" / "cat.jpg")
    shutil.copy(SAMPLES / "cat.jpg", own / "red" / ".cat.jpg")
    process = beit("train", own, *DEMO, "-E", "00?.png", "--hidden", "--max-pixels", 2000, "--out", "model")
    assert process.returncode == 2
    assert counts(process.stderr.decode()).images == 28  # all images of the class with other names
    assert process.stderr.count(b"cat.jpg: too_large") == 2


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twenty classes that are not easily told apart, to train on and to validate with."""
    folder, random = tmp_path_factory.mktemp("twenty"), np.random.default_rng(2)
    centres = random.integers(60, 196, (20, 3, 3, 3))
    for part, count in (("train", 6), ("val", 3)):
        for label, number in product(range(20), range(count)):
            colours = (centres[label] + random.normal(0, 45, (3, 3, 3))).clip(0, 255).astype(np.uint8)
            path = folder / part / f"class {label:02}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(colours).resize((32, 32)).save(path)
    return folder / "train", folder / "val"


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_validation_images_are_never_learnt_from_and_eval_finds_the_very_accuracy(
    dtype: str, beit: Beit, twenty: tuple[Path, Path], tmp_path: Path
) -> None:
    images, val = twenty
    options = ("--dtype", dtype, "-j", "0")
    run = beit("train", images, "-m", "demo", *options, "--val", val, "--out", "model")
    assert run.returncode == 0, run.stderr
    evaluated = beit("eval", val, "-m", "./model", *options, "--json", "val.json", "--mistakes", "mistakes.csv")
    figures = json.loads((tmp_path / "val.json").read_text())["figures"]
    accuracy = figures["top1"]["value"]
    assert 0.2 < accuracy < 0.95
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"| top-1 | {100 * accuracy:.2f} % |\n| top-5 | {100 * figures['top5']['value']:.2f} % |" in card
    assert "on 60 images that it was not trained on" in card and "trained on 120 images" in card
    assert f"`beit eval` with this model, in {dtype} on " in card
    summary = run.stderr.decode().splitlines()
    assert summary[-1].startswith(f"{100 * accuracy:.2f} % of 60 images correct at a strength of ")
    rows = table(tmp_path / "model" / "validation.csv")
    assert {row["fold"] for row in rows} == {""}
    wrong = [row for row in rows if row["true_label"] != row["predicted_label"]]
    assert len(wrong) == round((1 - accuracy) * 60)
    wrong.sort(key=lambda row: -float(row["confidence"]))
    assert table(tmp_path / "mistakes.csv") == [{k: v for k, v in row.items() if k != "fold"} for row in wrong]
    worst = f"  {wrong[0]['path']}: {wrong[0]['true_label']}, predicted as {wrong[0]['predicted_label']} ("
    assert worst in "\n".join(summary)
    assert evaluated.stdout.startswith(b"Evaluation\n")
    learnt = beit("eval", images, "-m", "./model", *options)
    assert learnt.stdout.startswith(b"`./model` has learnt from 120 of these 120 images: ")


@pytest.mark.slow
def test_the_accuracy_is_that_of_scikit_learn_on_the_features_of_embed(
    beit: Beit, twenty: tuple[Path, Path], tmp_path: Path
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, val = twenty
    run = beit("train", images, *DEMO, "--val", val, "--out", "model")
    ours = float(run.stderr.decode().splitlines()[-1].partition(" %")[0]) / 100
    features, targets = {}, {}
    for part in twenty:
        assert beit("embed", part, *DEMO, "--out", f"{part.name}.npy").returncode == 0
        features[part] = np.load(tmp_path / f"{part.name}.npy")
        targets[part] = [path.parent.name for path in sorted(part.rglob("*.png"))]
    fits = (make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)) for c in np.logspace(-4, 4, 10))
    theirs = max(fit.fit(features[images], targets[images]).score(features[val], targets[val]) for fit in fits)
    assert abs(ours - theirs) < 0.06  # a standard error of the accuracy on 60 images


@pytest.mark.slow
def test_a_probe_learns_from_validation_images_where_it_is_asked_to_and_says_so(
    beit: Beit, images: Path, unseen: Path, tiny_beit: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_beit, tmp_path / "model")
    run = beit("train", images, *DEMO, "--val", unseen, "--refit-on-all", "--replace", "--out", "model")
    assert run.returncode == 0, run.stderr
    assert os.listdir(tmp_path) == ["model"]
    assert run.stderr.decode().endswith("the model is in `model`, fitted again to all images, these too\n")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "on 15 images that were held out (by a layer trained on the others" in card
    assert "the final model is trained on all)" in card and "trained on 71 images" in card
    learnt = beit("eval", unseen, *DEMO, "-m", "./model")
    assert learnt.stdout.startswith(b"`./model` has learnt from 15 of these 15 images: ")
    refused = beit("train", images, "--finetune", *DEMO, "--refit-on-all", "--out", "other")
    assert refused.returncode == 2 and b"--refit-on-all is for a linear probe" in refused.stderr


def test_cross_validated_predictions_are_written_and_images_of_two_classes_counted(
    beit: Beit, images: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(images, tmp_path / "own")
    shutil.copy(own / "red" / "003.png", own / "green" / "red too.png")
    shutil.copy(own / "red" / "003.png", own / "red" / "again.png")
    run = beit("train", own, *DEMO, "--out", "model")
    assert run.returncode == 0, run.stderr
    pair = f"the same image in two classes: {own}/green/red too.png, {own}/red/003.png"
    assert run.stderr.decode().count(pair) == 1
    assert "1 images are, byte for byte, in two classes or more" in (tmp_path / "model" / "README.md").read_text()
    rows = table(tmp_path / "model" / "validation.csv")
    assert [row["path"] for row in rows] == sorted(map(str, own.rglob("*.png")))
    assert {row["fold"] for row in rows} == set("12345")
    fold = {row["path"]: row["fold"] for row in rows}
    assert fold[f"{own}/red/003.png"] == fold[f"{own}/red/again.png"]
    assert all(row["true_label"] == Path(row["path"]).parent.name for row in rows)
    correct = sum(row["true_label"] == row["predicted_label"] for row in rows)
    last = run.stderr.decode().splitlines()[-1]
    assert last.startswith(f"{100 * correct / len(rows):.2f} % of {len(rows)} images correct")
    assert all(0 <= float(row["confidence"]) <= 1 for row in rows)


def test_a_probe_of_a_middle_layer_is_a_classifier_of_so_many_layers(
    beit: Beit, images: Path, unseen: Path, tiny_beit: Path, tmp_path: Path
) -> None:
    run = beit("train", images, *DEMO, "-m", tiny_beit, "--layer", "1", "--out", "model")
    assert run.returncode == 0 and b"behind layer 1 at a strength" in run.stderr, run.stderr
    assert json.loads((tmp_path / "model" / "config.json").read_text())["num_hidden_layers"] == 1
    assert not any("layer.1." in name for name in load_file(tmp_path / "model" / "model.safetensors"))
    paths = sorted(unseen.rglob("*.png"))
    assert (by_us(tmp_path / "model", paths) - by_transformers(tmp_path / "model", paths)).abs().max() < 1e-4
    features = beit("embed", unseen, *DEMO, "-m", tiny_beit, "--layer", "1", "-o", "features.npy")
    assert features.returncode == 0, features.stderr
    last = beit("embed", unseen, *DEMO, "-m", tiny_beit, "-o", "last.npy")
    assert last.returncode == 0
    one, other = (np.load(tmp_path / f"{name}.npy") for name in ("features", "last"))
    assert one.shape == other.shape and not np.allclose(one, other)


def test_the_best_layer_is_that_of_the_best_validation(
    beit: Beit, images: Path, tiny_beit: Path, tmp_path: Path
) -> None:
    run = beit("train", images, *DEMO, "-m", tiny_beit, "--layer", "best", "--out", "best")
    assert run.returncode == 0, run.stderr
    table = (tmp_path / "best" / "README.md").read_text().partition("| layer | top-1 |")[2]
    by_layer = {int(row[0]): float(row[1]) for row in re.findall(r"\| (\d) \| ([\d.]+) % \|", table)}
    [chosen] = re.findall(rb"behind layer (\d) at", run.stderr)
    assert by_layer.keys() == {1, 2} and by_layer[int(chosen)] == max(by_layer.values())
    again = beit("train", images, *DEMO, "-m", tiny_beit, "--layer", chosen.decode(), "--out", "chosen")
    assert again.returncode == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("best", "chosen")]
    assert weights[0].keys() == weights[1].keys()
    for name, best in weights[0].items():
        assert (best - weights[1][name]).abs().max() <= 1e-3 * best.abs().max(), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--layer", "13"), "--layer 13: `demo` has 8 layers"),
        (("--layer", "0"), "--layer 0: no layer"),
        (("--layer", "best", "--finetune"), "--layer is for a linear probe"),
    ],
)
def test_layers_that_there_are_not_are_usage_errors(
    beit: Beit, images: Path, options: tuple[str, ...], words: str
) -> None:
    run = beit("train", images, "-m", "demo", *options, "--out", "model")
    assert (run.returncode, words in run.stderr.decode()) == (2, True), run.stderr
