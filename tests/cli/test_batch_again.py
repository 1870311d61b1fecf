"""`beit batch` run again, as a process: only missing and changed images, and failures that may pass, are processed."""

import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beitcli.errors import UsageError
from beitcli.jobs.requests import Resume
from beitcli.model.catalog import DEMO_FOLDER
from tests.cli.batches import (
    Counts,
    batch,
    bound_by_modes,
    clean_environment,
    command,
    counts,
    grow,
    light,
    numbered,
    skip_unless_modes_bind,
    states,
    stored_results,
)

MODEL = ("-m", "demo", "--dtype", "fp32", "-b", 8, "-j", 2)
INPUTS = ("images", "more", "late.png")
SAME = (*INPUTS, *MODEL, "--out", "out.jsonl")
ALL = Counts(images=63, kept=59, decoded=0, reused=0, failed=4)
"""Counts of a run on `finished` with nothing to do."""


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over 63 images, three of them broken, and one a dangling link."""
    folder = tmp_path_factory.mktemp("first")
    grow(folder / "images", numbered(60))
    grow(folder / "more", ["a.png", "b.png"], seed=2)
    with open(folder / "images" / "007.png", "r+b") as broken:
        broken.truncate(100)
    (folder / "images" / "013.png").write_bytes(b"")
    (folder / "images" / "021.png").write_text("no image")
    (folder / "late.png").symlink_to("later.png")
    process = batch(folder, *SAME, env=clean_environment())
    assert process.returncode == 3, process.stderr
    assert counts(process.stderr) == (63, 0, 59, 0, 4)
    assert "failed: 1 " in process.stderr
    return folder


@pytest.fixture
def finished(first_run: Path, tmp_path: Path) -> Path:
    """A copy to work on. Its output is a copy too, so the next run writes it once more."""
    return Path(shutil.copytree(first_run, tmp_path / "work", symlinks=True))


@pytest.fixture
def settled(finished: Path) -> Path:
    """The same, with an output written by this ledger."""
    assert counts(light(finished, *SAME).stderr) == ALL
    return finished


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def sources(path: Path) -> list[str]:
    return [row["source"] for row in rows(path)]


def version(path: Path) -> tuple[int, int, bytes]:
    status = path.lstat()
    return status.st_ino, status.st_mtime_ns, path.read_bytes() if path.is_file() else b""


def everything(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {str(path): version(path) for path in folder.rglob("*") if not path.is_dir()}


def test_only_what_is_new_or_changed_is_decoded_and_the_file_is_that_of_a_run_without_a_ledger(finished: Path) -> None:
    images, out, ledger = finished / "images", finished / "out.jsonl", finished / "out.jsonl.ledger"
    grow(images, ["003a.png", "zz.png", "007.png"], seed=3)
    (images / "030.png").unlink()
    shutil.copy(images / "000.png", images / "041a.png")  # of the previous run
    shutil.copy(images / "003a.png", images / "041b.png")  # of this run
    process = batch(finished, *SAME)
    assert counts(process.stderr) == (66, 58, 3, 2, 3)
    assert "1 results in the ledger are of images no longer among the inputs" in process.stderr
    assert process.returncode == 3
    resumed, before = out.read_bytes(), version(ledger)
    out.write_text("before")
    process = batch(finished, *SAME, "--no-ledger")
    assert counts(process.stderr) == (66, 0, 63, 0, 3)
    assert out.read_bytes() == resumed
    assert version(ledger) == before
    assert sorted(os.listdir(finished)) == sorted([*INPUTS, out.name, ledger.name])
    assert counts(light(finished, *SAME).stderr) == (66, 63, 0, 0, 3)


# Nothing to do


def test_nothing_to_do_touches_nothing_and_imports_nothing_heavy(settled: Path) -> None:
    before = version(settled / "out.jsonl")
    process = light(settled, *SAME)
    assert (counts(process.stderr), process.returncode) == (ALL, 3)
    process = light(settled, *SAME, "-q", "--fail-on", "never")
    assert (process.stdout, process.stderr, process.returncode) == ("", "", 0)
    assert version(settled / "out.jsonl") == before
    assert sorted(os.listdir(settled)) == sorted([*INPUTS, "out.jsonl", "out.jsonl.ledger"])


def delete(path: Path) -> None:
    path.unlink()


def edit(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def restore_from_a_backup(path: Path) -> None:
    shutil.copy2(path, f"{path}.backup")
    os.replace(f"{path}.backup", path)


@pytest.mark.parametrize("meddle", [delete, edit, restore_from_a_backup])
def test_a_changed_output_is_written_again(settled: Path, meddle: Callable[[Path], None]) -> None:
    out = settled / "out.jsonl"
    expected = out.read_bytes()
    meddle(out)
    changed = out.stat() if out.exists() else None
    assert counts(light(settled, *SAME).stderr) == ALL
    assert out.read_bytes() == expected
    assert changed is None or changed.st_ino != out.stat().st_ino


def above(row: dict[str, Any], least: float) -> dict[str, Any]:
    if "predictions" not in row:
        return row
    return row | {"predictions": [found for found in row["predictions"] if found["score"] >= least]}


def is_best(row: dict[str, Any], label: str) -> bool:
    return "predictions" not in row or row["predictions"][0]["label"] == label


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--threshold", "0.3"], lambda before: [above(row, 0.3) for row in before]),
        (["--label", "frog"], lambda before: [row for row in before if is_best(row, "frog")]),
        (["-b", 3, "-j", 1, "--device", "cpu", "--decode-timeout", 5, "--url-timeout", 5, "-v"], lambda before: before),
    ],
    ids=["threshold", "label", "speed"],
)
def test_options_of_appearance_decode_nothing(
    settled: Path, options: list[object], expected: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    before = rows(settled / "out.jsonl")
    assert counts(light(settled, *SAME, *options).stderr) == ALL
    after = rows(settled / "out.jsonl")
    assert after == expected(before)
    assert (after == before) is ("-b" in options)


def test_another_format_or_order_decodes_nothing(settled: Path) -> None:
    before = sources(settled / "out.jsonl")
    assert counts(light(settled, *SAME, "-f", "csv").stderr) == ALL
    lines = (settled / "out.jsonl").read_text().splitlines()
    assert lines[0].startswith("source,status")
    assert [line.partition(",")[0] for line in lines[1:]] == before
    turned = light(settled, "more", "late.png", "more/a.png", "images", *MODEL, "--out", "out.jsonl")
    assert counts(turned.stderr) == (64, 60, 0, 0, 4)
    assert sources(settled / "out.jsonl") == [*before[60:], "more/a.png", *before[:60]]


def test_a_link_leads_to_the_ledger_of_its_target(settled: Path) -> None:
    (settled / "links").mkdir()
    (settled / "links" / "link.jsonl").symlink_to("../out.jsonl")
    before = version(settled / "out.jsonl")
    assert counts(light(settled, *INPUTS, *MODEL, "--out", "links/link.jsonl").stderr) == ALL
    assert version(settled / "out.jsonl") == before
    (settled / "out.jsonl").unlink()
    assert counts(light(settled, *INPUTS, *MODEL, "--out", "links/link.jsonl").stderr) == ALL
    assert (settled / "out.jsonl").read_bytes() == before[2]
    assert (settled / "links" / "link.jsonl").is_symlink()
    assert os.listdir(settled / "links") == ["link.jsonl"]


def test_a_compressed_file_is_the_same_each_time(finished: Path) -> None:
    shutil.copy(finished / "out.jsonl.ledger", finished / "out.jsonl.gz.ledger")
    out = finished / "out.jsonl.gz"
    seen = []
    for _ in range(2):
        assert counts(light(finished, *INPUTS, *MODEL, "--out", out.name).stderr) == ALL
        seen.append(version(out))
    assert seen[0] == seen[1]
    assert gzip.decompress(out.read_bytes()) == (finished / "out.jsonl").read_bytes()
    out.unlink()
    light(finished, *INPUTS, *MODEL, "--out", out.name)
    assert out.read_bytes() == seen[0][2]


# Dependencies of a prediction


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in folders of its own: copied, touched, and changed in each of its files."""
    folder = tmp_path_factory.mktemp("weights")
    for name in ("copied", "touched", "tensors", "config", "processor"):
        shutil.copytree(DEMO_FOLDER, folder / name)
    for path in (folder / "touched").iterdir():
        os.utime(path)
    with open(folder / "tensors" / "model.safetensors", "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        [last] = stream.read()
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    for name in ("config/config.json", "processor/preprocessor_config.json"):
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | {"remark": "another"}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--dtype", "bf16"], True),
        (["--dtype", "auto"], True),
        (["--preprocess", "paper"], True),
        (["--image-size", 64], True),
        (["--top-k", 3], False),
        (["--max-pixels", 100_000], False),
        (["--fast-decode"], True),
        (["-m", "{weights}/tensors"], True),
        (["-m", "{weights}/config"], True),
        (["-m", "{weights}/processor"], True),
        (["-m", "{weights}/copied"], False),
        (["-m", "{weights}/touched"], False),
        (["-b", 3], False),
        (["-j", 1], False),
        (["--threshold", 0.5], False),
        (["--label", "cat"], False),
        (["-f", "csv"], False),
        (["--device", "cpu"], False),
    ],
    ids=str,
)
def test_which_options_change_a_prediction(
    first_run: Path, weights: Path, options: list[object], changed: bool
) -> None:
    given = [str(option).format(weights=weights) for option in options]
    found = states(light(first_run, *SAME, *given, "--dry-run").stdout)
    expected = {"changed": 62, "up to date": 0} if changed else {"changed": 0, "up to date": 62}
    assert found == {"new": 0, "to retry": 1, "gone": 0} | expected


def test_another_version_of_pillow_decodes_again(first_run: Path, tmp_path: Path) -> None:
    for number, expected in ((f"{pillow_version()}.99", 0), ("99.0.0", 62)):
        installed = tmp_path / number / "pillow-1.dist-info"
        installed.mkdir(parents=True)
        (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pillow\nVersion: {number}\n")
        env = os.environ | {"PYTHONPATH": str(installed.parent)}
        assert states(light(first_run, *SAME, "--dry-run", env=env).stdout)["changed"] == expected


def pillow_version() -> str:
    from importlib.metadata import version

    return ".".join(version("pillow").split(".")[:2])


def test_predictions_of_other_settings_are_repeated_with_one_notice(finished: Path) -> None:
    process = batch(finished, *SAME, "--preprocess", "paper")
    assert counts(process.stderr) == (63, 0, 59, 0, 4)
    [notice] = [line for line in process.stderr.splitlines() if "other settings" in line]
    assert "62 results" in notice
    assert "--preprocess checkpoint -> paper" in notice
    assert "--dtype" not in notice
    assert counts(light(finished, *SAME, "--preprocess", "paper").stderr) == ALL


def test_fewer_labels_are_a_part_of_those_that_the_ledger_keeps(finished: Path) -> None:
    before = rows(finished / "out.jsonl")
    assert counts(light(finished, *SAME, "-k", 3).stderr) == ALL
    assert rows(finished / "out.jsonl") == [
        row | {"predictions": row["predictions"][:3]} if "predictions" in row else row for row in before
    ]


# Failures


@pytest.mark.slow
def test_failures_stay_or_are_tried_again(tmp_path: Path) -> None:
    skip_unless_modes_bind(tmp_path)
    grow(tmp_path, ["a.png", "locked.png", "later.png"])
    (tmp_path / "notes.png").write_text("no image")
    (tmp_path / "folder").mkdir()
    os.rename(tmp_path / "later.png", tmp_path / "not yet")
    (tmp_path / "locked.png").chmod(0)
    (tmp_path / "list").write_text("a.png\nlocked.png\nlater.png\nnotes.png\nfolder\nnever.png\n")
    same = ("--files-from", "list", *MODEL, "--out", "out.jsonl")
    settings: dict[str, Any] = {"preexec_fn": bound_by_modes}

    def codes() -> list[str]:
        return [row.get("error", {"code": "ok"})["code"] for row in rows(tmp_path / "out.jsonl")]

    assert counts(batch(tmp_path, *same, **settings).stderr) == (6, 0, 1, 0, 5)
    assert codes() == ["ok", "permission", "not_found", "not_an_image", "not_an_image", "not_found"]
    assert states(light(tmp_path, *same, "--dry-run", **settings).stdout)["to retry"] == 3
    assert states(light(tmp_path, *same, "--dry-run", "--retry-errors", **settings).stdout)["to retry"] == 5
    (tmp_path / "locked.png").chmod(0o644)  # changes neither its size nor its time
    os.rename(tmp_path / "not yet", tmp_path / "later.png")
    process = batch(tmp_path, *same, **settings)
    assert (counts(process.stderr), process.returncode) == ((6, 1, 2, 0, 3), 3)
    assert codes() == ["ok", "ok", "ok", "not_an_image", "not_an_image", "not_found"]
    (tmp_path / "later.png").unlink()
    assert counts(light(tmp_path, *same, **settings).stderr) == (6, 2, 0, 0, 4)
    assert codes()[2] == "not_found"


# Identical images


def test_no_dedupe_gives_identical_images_a_forward_pass_each(tmp_path: Path) -> None:
    grow(tmp_path / "images", ["a.png"])
    shutil.copy(tmp_path / "images" / "a.png", tmp_path / "images" / "b.png")
    arguments = ("images", "images/a.png", *MODEL, "--out", "out.jsonl", "--no-dedupe")
    assert counts(batch(tmp_path, *arguments).stderr) == (3, 0, 2, 1, 0)  # a name given twice is one image
    first, second, third = rows(tmp_path / "out.jsonl")
    assert first == third
    assert first["predictions"] == second["predictions"]


# Removed images


def test_removed_images_leave_the_output_at_once_and_the_ledger_when_pruned(settled: Path) -> None:
    image, elsewhere = settled / "images" / "030.png", settled / "030.png"
    for option, notice in (((), "(--prune deletes them)"), (("--prune",), "deleted")):
        os.rename(image, elsewhere)
        assert states(light(settled, *SAME, "--dry-run").stdout)["gone"] == 1
        process = light(settled, *SAME, *option)
        assert counts(process.stderr) == ALL._replace(images=62, kept=58)
        assert [line for line in process.stderr.splitlines() if "1 results" in line and notice in line]
        assert "images/030.png" not in sources(settled / "out.jsonl")
        os.rename(elsewhere, image)
    assert states(light(settled, *SAME, "--dry-run").stdout)["new"] == 1


@pytest.mark.parametrize("inputs", [INPUTS, ("more",), ("more/", "late.png"), ("images", "more//")], ids=" ".join)
def test_a_share_that_is_not_mounted_stops_the_run(settled: Path, inputs: tuple[str, ...]) -> None:
    os.rename(settled / "more", settled / "elsewhere")
    (settled / "more").mkdir()
    (settled / "more" / "README.txt").write_text("mount it here")
    before = version(settled / "out.jsonl")
    for options in ((), ("--dry-run",), ("-q",)):
        process = light(settled, *inputs, *MODEL, "--out", "out.jsonl", *options)
        assert process.returncode == 1
        assert "beit: error: there is no image in `more" in process.stderr
        assert "--prune" in process.stderr
        assert version(settled / "out.jsonl") == before
    assert stored_results(settled / "out.jsonl.ledger") == 63


def test_prune_accepts_an_emptied_folder(settled: Path) -> None:
    shutil.rmtree(settled / "more")
    (settled / "more").mkdir()
    process = light(settled, *SAME, "--prune")
    assert counts(process.stderr) == ALL._replace(images=61, kept=57)
    assert "2 results" in process.stderr
    assert stored_results(settled / "out.jsonl.ledger") == 61
    assert counts(light(settled, *SAME).stderr) == ALL._replace(images=61, kept=57)


def test_an_empty_folder_that_always_was_empty_stops_nothing(settled: Path) -> None:
    for name in ("more-", "more0", "imag", "empty"):
        (settled / name).mkdir()
        assert counts(light(settled, *INPUTS, name, *MODEL, "--out", "out.jsonl").stderr) == ALL


# Dry runs, fresh starts, shards and options


def test_a_dry_run_counts_and_changes_nothing(settled: Path) -> None:
    grow(settled / "images", ["zz.png", "030.png"], seed=3)
    (settled / "images" / "031.png").unlink()
    os.utime(settled / "images" / "032.png")
    before = everything(settled)
    process = light(settled, *SAME, "--dry-run")
    assert process.stdout.splitlines() == ["1 new", "2 changed", "1 to retry", "59 up to date", "1 gone"]
    assert process.returncode == 0
    other = light(settled, *INPUTS, *MODEL, "--out", "other.jsonl", "--dry-run", "-q")
    assert (other.stdout.splitlines()[0], other.stderr) == ("63 new", "")
    assert states(light(settled, *SAME, "--dry-run", "--fresh").stdout)["new"] == 63
    assert everything(settled) == before


def test_fresh_starts_over_and_keeps_the_old_ledger(finished: Path) -> None:
    expected = (finished / "out.jsonl").read_bytes()
    process = batch(finished, *SAME, "--fresh")
    assert counts(process.stderr) == (63, 0, 59, 0, 4)
    assert (finished / "out.jsonl").read_bytes() == expected
    assert stored_results(finished / "out.jsonl.ledger.old") == stored_results(finished / "out.jsonl.ledger") == 63
    assert counts(light(finished, *SAME).stderr) == ALL


def test_shards_are_disjoint_complete_and_the_same_each_time(finished: Path) -> None:
    whole = sources(finished / "out.jsonl")
    parts = []
    for number in (1, 2, 3, 2):
        process = light(finished, *SAME, "--shard", f"{number}/3")
        parts.append(sources(finished / "out.jsonl"))
        assert counts(process.stderr).images == len(parts[-1])
        assert counts(process.stderr).decoded == 0
        assert parts[-1] == [source for source in whole if source in parts[-1]]
    assert parts[3] == parts[1]
    assert sorted(sum(parts[:3], [])) == sorted(whole)  # noqa: RUF017  # three lists
    assert all(len(part) > 10 for part in parts)


OPTIONS = ("dry_run", "retry_errors", "refresh_urls", "no_dedupe", "prune", "fresh")
KEPT: list[dict[str, Any]] = [{name: True} for name in OPTIONS]


NO_SHARDS = ["0/3", "4/3", "1/0", "0/0", "1", "x", "-1/2", "1/2/3", " 1/2", "1.0/2", "1/x", "١/٢"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *((Resume(**kept), "needs a ledger") for kept in KEPT),
        *((Resume(out="new.csv", no_ledger=True, **kept), "needs a ledger") for kept in KEPT),
        *((Resume(shard=shard), f"`shard={shard}`: no such part") for shard in NO_SHARDS),
    ],
    ids=str,
)
def test_options_that_contradict_each_other(options: Resume, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        options.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--prune"], "--prune needs a ledger"), (["--shard", "4/3"], "--shard 4/3"), (["--shard"], "Option '--shard'")],
    ids=str,
)
def test_invalid_options_end_with_status_2(first_run: Path, options: list[str], message: str) -> None:
    process = light(first_run, "images", *MODEL, *options)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith(f"beit: error: {message}")


def test_an_image_on_standard_input_is_counted_and_done_each_time(settled: Path) -> None:
    grow(settled, ["one.png", "two.png"], seed=5)
    arguments = (*INPUTS, "-", *MODEL, "--out", "out.jsonl")
    for name in ("one.png", "two.png"):
        process = batch(settled, *arguments, input=(settled / name).read_bytes())
        assert counts(process.stderr) == ALL._replace(images=64, decoded=1)
        assert rows(settled / "out.jsonl")[-1]["source"] == "-"
    process = batch(settled, "images/000.png", "-", *MODEL, "--out", "out.jsonl", input=b"no image")
    assert (counts(process.stderr), process.returncode) == ((2, 1, 0, 0, 1), 3)


def test_colours_are_not_the_look_of_a_file(settled: Path) -> None:
    before = version(settled / "out.jsonl")
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    assert counts(light(settled, *SAME, env=env).stderr) == ALL
    assert counts(light(settled, *SAME, "--color", "always").stderr) == ALL
    assert version(settled / "out.jsonl") == before


@pytest.mark.parametrize("option", ["--dry-run", "--prune", "--fresh"])
def test_a_device_has_no_ledger(first_run: Path, option: str) -> None:
    process = light(first_run, "images", *MODEL, "--out", "/dev/null", "-f", "csv", option)
    assert (process.returncode, process.stdout) == (2, "")
    assert f"{option} needs a ledger" in process.stderr


def test_a_dry_run_counts_an_image_named_twice_in_any_state(finished: Path) -> None:
    twice = ("images", "images", *MODEL, "--dry-run", "--out")
    assert states(light(finished, *twice, "new.jsonl").stdout)["new"] == 120
    assert states(light(finished, *twice, "out.jsonl").stdout)["up to date"] == 120


def test_a_folder_in_a_list_does_not_change_each_time(finished: Path) -> None:
    (finished / "list").write_text("images\n")
    same = ("--files-from", "list", *MODEL, "--out", "out.jsonl")
    light(finished, *same)
    assert states(light(finished, *same, "--dry-run").stdout)["changed"] == 0


def test_prune_deletes_the_results_of_an_emptied_folder(finished: Path) -> None:
    for path in (finished / "images").rglob("*.*"):
        path.unlink()
    process = light(finished, "images", *MODEL, "--out", "out.jsonl", "--prune")
    assert (process.returncode, counts(process.stderr)) == (0, (0, 0, 0, 0, 0))
    assert (finished / "out.jsonl").read_bytes() == b""
    assert light(finished, "images", *MODEL, "--out", "out.jsonl").returncode == 2


def test_a_prediction_survives_the_absence_of_its_file(finished: Path) -> None:
    before = (finished / "out.jsonl").read_bytes()
    (finished / "list").write_text("".join(f"images/{number:03}.png\n" for number in range(3)))
    same = ("--files-from", "list", *MODEL, "--out", "out.jsonl")
    os.rename(finished / "images", finished / "away")
    assert counts(light(finished, *same).stderr) == Counts(3, 0, 0, 0, 3)
    os.rename(finished / "away", finished / "images")
    assert counts(light(finished, *same).stderr) == Counts(3, 3, 0, 0, 0)
    assert (finished / "out.jsonl").read_bytes() == b"".join(before.splitlines(keepends=True)[:3])


def test_other_names_for_labels_reach_the_output(tmp_path: Path) -> None:
    grow(tmp_path / "images", numbered(3))
    shutil.copytree(DEMO_FOLDER, tmp_path / "model")
    same = ("images", "-m", "./model", "--dtype", "fp32", "-k", 0, "--out", "out.jsonl")
    batch(tmp_path, *same)
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"frog"', '"KERMIT"'))
    batch(tmp_path, *same)
    assert (tmp_path / "out.jsonl").read_text().count('"KERMIT"') == 3


def test_a_runs_own_files_are_records_and_stay_shut(tmp_path: Path) -> None:
    grow(tmp_path, ["a.png"])
    (tmp_path / "out.jsonl.lock").touch()
    same = ("a.png", "out.jsonl.lock", *MODEL, "-j", 0, "--out", "out.jsonl")
    assert counts(batch(tmp_path, *same).stderr) == Counts(2, 0, 1, 0, 1)
    assert rows(tmp_path / "out.jsonl")[1]["error"]["code"] == "not_an_image"


def test_a_descriptor_by_name_is_streamed_to(tmp_path: Path) -> None:
    grow(tmp_path, ["a.png"])
    with open(tmp_path / "log", "w+") as log:
        log.write("precious\n")
        log.flush()
        arguments = command("a.png", *MODEL, "-f", "csv", "-o", "/dev/stdout", "-q")
        subprocess.run(arguments, cwd=tmp_path, stdout=log, check=True, timeout=120)
    assert (tmp_path / "log").read_text().startswith("precious\nsource,status")
    assert sorted(os.listdir(tmp_path)) == ["a.png", "log"]


def test_the_name_of_a_ledger_is_no_name_for_an_output(finished: Path) -> None:
    process = light(finished, "images", *MODEL, "-f", "csv", "--out", "out.jsonl.ledger")
    assert (process.returncode, stored_results(finished / "out.jsonl.ledger")) == (1, 63)


def test_the_notice_counts_the_repeated_predictions(finished: Path) -> None:
    process = batch(finished, "images/000.png", "images/001.png", *MODEL, "--preprocess", "paper", "--out", "out.jsonl")
    [notice] = [line for line in process.stderr.splitlines() if "other settings" in line]
    assert "beit: 2 results" in notice
