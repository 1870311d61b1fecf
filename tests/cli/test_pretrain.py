"""`beit pretrain` as a process: bad input, connections, and runs that are stopped and killed."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_train import Beit, assert_both_load_it
from tests.training.shapes import draw_classes

SMALL = ("--size", "tiny", "--image-size", "16", "--vocab", "8", "-b", "16", "-j", "1")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return draw_classes(tmp_path / "shapes", 20)


def bad_input(images: Path, folder: Path) -> dict[str, tuple[list[object], int, str]]:
    """Cases of bad input: the arguments, the exit status, and a text that the error contains."""
    (folder / "empty").mkdir()
    (folder / "one").mkdir()
    shutil.copy(images / "red" / "000.png", folder / "one")
    (folder / "encoder.pkl").write_bytes(b"no pickle")
    return {
        "both beginnings": ([images, "-m", "demo", "--size", "tiny"], 2, "--model and --size exclude each other"),
        "patches of a model": ([images, "-m", "demo", "--patch-size", "8"], 2, "--patch-size is for a new model"),
        "a revision of nothing": ([images, "--revision", "main"], 2, "add --model"),
        "patches that do not fit": ([images, "--image-size", "30"], 2, "--image-size 30: it needs a multiple of 4"),
        "a size that does not fit": ([images, "-m", "demo", "--image-size", "33"], 2, "--image-size 33"),
        "tokens of dall-e": ([images, "--tokenizer", "dalle", "--vocab", "9"], 2, "--vocab is for a new codebook"),
        "a share of one": ([images, "--mask", "1"], 2, "--mask"),
        "no images": ([folder / "empty"], 2, "no image in"),
        "nothing named": ([], 2, "nothing to classify"),
        "one image": ([folder / "one"], 2, "there is one image"),
        "an output inside": ([images, "--out", images / "model"], 2, "is in a folder of the images"),
        "an output that exists": ([images, "--out", folder / "one"], 2, "exists already"),
        "no pickle": ([images, "--tokenizer", folder / "encoder.pkl"], 2, "no DALL-E encoder"),
        "the hub out of reach": ([images, "--tokenizer", "dalle"], 1, "--tokenizer kmeans"),
        "no such tokenizer": ([images, "--tokenizer", "./nowhere"], 1, "neither an alias, a folder nor a Hub id"),
    }


@pytest.mark.slow
def test_bad_input_is_an_error_that_names_it(beit: Beit, images: Path, tmp_path: Path) -> None:
    for what, (arguments, status, named) in bad_input(images, tmp_path).items():
        run = beit("pretrain", *arguments, *(() if "--out" in arguments else ("--out", "model")))
        message = run.stderr.decode()
        assert (run.returncode, named in message, "Traceback" in message) == (status, True, False), (what, message)
        assert not (tmp_path / "model").exists() and not (tmp_path / "model.part").exists(), what


@pytest.mark.slow
def test_it_says_how_good_it_is_and_what_is_next_and_classifies_nothing(
    beit: Beit, images: Path, tmp_path: Path
) -> None:
    run = beit("pretrain", images / "red", images / "blue", *SMALL, "--epochs", "1", "--out", "encoder")
    assert run.returncode == 0 and run.stdout == b"", run.stderr
    scores, last = run.stderr.decode().splitlines()[-2:]
    assert "4 images held out: loss " in scores and "(entropy of the tokens " in scores
    assert last == "the model is in `encoder`; next: `beit train ./labelled -m ./encoder --out my-model`"
    for command in ("classify", "eval"):
        refused = beit(command, images, "-m", "./encoder")
        assert refused.returncode == 1
        assert b"`./encoder` is pre-trained only: it has no classes yet" in refused.stderr
        assert b"hint: `beit train` gives it yours; `beit embed` takes it as it is" in refused.stderr
    trained = beit("train", images, "-m", "./encoder", "-j", "1", "--out", "model")
    assert trained.returncode == 0, trained.stderr
    assert beit("classify", images / "red", "-m", "./model", "-q").returncode == 0
    finetune = ("train", images, "--finetune", "-m", "./encoder", "--epochs", "1", "-j", "1", "--out", "finetuned")
    refused = beit(*finetune, "--checkpoint-gradients")
    assert refused.returncode == 2
    assert b"--checkpoint-gradients: `./encoder` is too small to need it" in refused.stderr
    finetuned = beit(*finetune)
    assert finetuned.returncode == 0, finetuned.stderr
    assert_both_load_it(tmp_path / "finetuned", images)
    assert (
        "fine-tuned at 16 pixels. 1 epochs, in batches of 32: Muon"
        in (tmp_path / "finetuned" / "README.md").read_text()
    )


GUARDED = """
import runpy, sys

def refuse(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        print("connection:", event, arguments, file=sys.stderr)
        sys.stderr.flush()
        import os
        os._exit(99)

sys.addaudithook(refuse)
sys.argv[0] = "beit"
runpy.run_module("beitcli", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_a_codebook_of_ones_own_images_opens_no_connection(images: Path, tmp_path: Path) -> None:
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}

    def guarded(*options: str) -> "subprocess.CompletedProcess[str]":
        command = ["pretrain", str(images), "--epochs", "1", "--out", "model", "-j", "0", *options]
        return subprocess.run(
            [sys.executable, "-c", GUARDED, *command], cwd=tmp_path, env=online, capture_output=True, text=True
        )

    assert guarded("--size", "tiny", "--tokenizer", "dalle").returncode == 99  # the guard sees what it is to see
    run = guarded(*SMALL)
    assert run.returncode == 0, run.stderr


def killed_at(line: str, command: list[str], folder: Path, number: signal.Signals, times: int = 1) -> str:
    """Lines of the command on stderr until it is killed: once it has printed this line so many times."""
    with subprocess.Popen(
        [sys.executable, "-m", "beitcli", *command], cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        said = ""
        for each in process.stderr:
            said += each
            times -= line in each
            if not times:
                break
        process.send_signal(number)
        said += process.stderr.read()
    assert process.returncode == -number, said
    return said


@pytest.mark.slow
def test_stopped_and_killed_anywhere_it_ends_with_the_very_same_bytes(beit: Beit, images: Path, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        return ["pretrain", str(images), *SMALL, "--epochs", "60", "--out", out]

    assert beit(*command("undisturbed"), "-q", timeout=300).returncode == 0
    killed_at("fitting a codebook", command("model"), tmp_path, signal.SIGKILL)
    assert (tmp_path / "model.part" / "run.json").exists()
    killed_at("step", command("model"), tmp_path, signal.SIGKILL)
    stopped = killed_at("step", command("model"), tmp_path, signal.SIGTERM)
    assert "fitting" not in stopped and "the same command goes on from there" in stopped
    assert not (tmp_path / "model").exists()
    other = beit(*command("model"), "--mask", "0.5")
    assert other.returncode == 2 and b"another mask: 0.38" in other.stderr
    last = beit(*command("model"), timeout=300)
    assert last.returncode == 0 and b"going on" in last.stderr, last.stderr
    digests = [
        {hashlib.sha256((tmp_path / out / name).read_bytes()).hexdigest() for out in ("undisturbed", "model")}
        for name in ("model.safetensors", "tokenizer.safetensors")
    ]
    assert [len(each) for each in digests] == [1, 1]
    assert not (tmp_path / "model.part").exists()
