"""Messages of the library in the words of the command line."""

import subprocess
from collections.abc import Callable

import pytest

from beitcli.cli.flags import Flag, in_flags

FLAGS = {
    "image_size": Flag("--image-size"),
    "files_from": Flag("--files-from"),
    "json_file": Flag("--json"),
    "prune": Flag("--prune", is_switch=True),
    "compile": Flag("--compile", is_switch=True, off="--no-compile"),
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`image_size=100`: `base-224` needs a multiple of 16", "--image-size 100: `base-224` needs a multiple of 16"),
        ("`json_file=FILE`", "--json FILE"),
        ("try `image_size=` or `compile=False`", "try --image-size or --no-compile"),
        ("`prune=True` and `compile=True`", "--prune and --compile"),
        ("`prune=`, `compile=`", "--prune, --compile"),
        ("`files_from=-`", "`--files-from -`"),
        ("`files_from=two words`", "--files-from two words"),
        ("`prune=False` has no flag", "`prune=False` has no flag"),
        ("`compile=maybe` is no switch's", "`compile=maybe` is no switch's"),
        ("`size=100` is unknown", "`size=100` is unknown"),
        ("prune=True is no parameter without backticks", "prune=True is no parameter without backticks"),
        ("`a.jpg` and image_size=100 and `b.jpg`", "`a.jpg` and image_size=100 and `b.jpg`"),
        ("`./image_size=100` is a file", "`./image_size=100` is a file"),
        ("`image_size=`` is odd", "--image-size` is odd"),
        ("100 %, \\1 and {image_size}", "100 %, \\1 and {image_size}"),
        ("", ""),
    ],
)
def test_parameters_become_flags(message: str, expected: str) -> None:
    assert in_flags(message, FLAGS.get) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("batch . --fresh", ["beit: error: --fresh needs a ledger", "hint: add --out FILE"]),
        ("embed . --prune", ["beit: error: --prune needs a ledger", "hint: add --out FILE"]),
        ("eval . -m demo --fresh", ["beit: error: --fresh needs a ledger", "hint: add --json FILE"]),
        ("batch . --out x.csv --fresh --no-ledger", ["beit: error: --fresh needs a ledger", "hint: drop --no-ledger"]),
        ("classify . --device abacus", ["beit: error: --device abacus: no such device", "hint: one of auto, cpu, …"]),
        ("batch model=x --out a.csv -m demo", ["beit: error: --model x does not exist"]),
    ],
    ids=str,
)
def test_a_command_names_its_own_flags(
    beit: "Callable[..., subprocess.CompletedProcess[bytes]]", line: str, lines: list[str]
) -> None:
    printed = beit(*line.split()).stderr.decode().splitlines()
    assert [text.replace("cpu, cuda, cuda:N, mps", "cpu, …") for text in printed] == lines
