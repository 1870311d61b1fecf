"""Every command, script and output in the README and the manual, as a reader would run them."""

from pathlib import Path

import pytest
import typer

from beitcli.cli.commands import app_with
from tests.documents.blocks import WRITTEN, blocks, commands_of_beit, matches, run, steps

RUN = [path for path in WRITTEN if steps(path)]
FAST = ("README", "resume")  # the others take half a minute together


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in FAST else [pytest.mark.slow]) for path in RUN],
)
def test_what_is_shown_is_what_is_printed(path: Path, tmp_path: Path) -> None:
    outcomes = run(steps(path), tmp_path)
    assert len(outcomes) == len(steps(path))
    for outcome in outcomes:
        if outcome.step.shown is None or outcome.step.is_python:
            assert outcome.status == 0, f"{outcome.step.text}\n{outcome.printed}"
        if outcome.step.shown is not None and not matches(outcome.step.shown, outcome.printed):
            pytest.fail(f"{outcome.step.text}\nshown:\n{outcome.step.shown}\nprinted:\n{outcome.printed}")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_commands_that_are_not_run_are_at_least_understood(path: Path) -> None:
    beit = typer.main.get_command(app_with())
    for block in blocks(path):
        for arguments in commands_of_beit(block.text) if block.language in ("sh", "ini") else ():
            with beit.make_context("beit", list(arguments)) as context:
                name, command, rest = beit.resolve_command(context, arguments)  # type: ignore[attr-defined]
                command.make_context(name, rest, parent=context)


def test_the_manual_has_something_of_every_kind() -> None:
    """Otherwise the tests above might pass because nothing is found."""
    found = [step for path in RUN for step in steps(path)]
    assert len([step for step in found if step.shown]) >= 20
    assert len([step for step in found if step.is_script]) >= 1
    commands = [
        call for path in WRITTEN for block in blocks(path) if not block.is_run for call in commands_of_beit(block.text)
    ]
    assert ["batch", "./images", "-m", "base-224", "--out", "preds.csv"] in commands


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 0.4321 b\n", "a 0.4399 b\n", True),
        ("a 0.4321 b\n", "a 1.4321 b\n", False),
        ("27.2 images/s\n", "3.1 images/s, limited by the model\n", True),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nb\nc\n", False),
        ("a\n", "a\nb\n", False),
        ("", "Traceback\n", False),
    ],
)
def test_outputs_are_compared_but_for_rates_and_decimals(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) is same
