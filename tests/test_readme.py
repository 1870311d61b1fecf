"""The README agrees with the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from beitcli.errors import ERROR_CODES, ExitStatus
from tests.conftest import ROOT
from tests.tree import tree

README = (ROOT / "README.md").read_text()


def help_of(command: str) -> str:
    run = [sys.executable, "-m", "beitcli", *command.split(), "--help"]
    return subprocess.run(run, capture_output=True, text=True, check=True).stdout


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z0][\w-]*", text))


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("command", ["classify", "batch"])
def test_every_option_is_in_the_readme(command: str) -> None:
    panels = "\n".join(line for line in help_of(command).splitlines() if line.startswith("│"))
    names = options_in("\n".join(re.findall(r"^│ [ *]*((?:--[\w-]+|-\w)(?: +-\w\b)?)", panels, re.M)))
    assert len(names) > 40
    assert names - {"--help", "-h"} <= options_in(section("Options"))


def test_every_option_of_the_benchmark_is_in_its_section() -> None:
    shown = options_in(help_of("bench").partition("Options")[2].partition("Examples")[0])
    listed = options_in(section("How fast it is here").partition("| option")[2].partition("\n\n")[0])
    assert shown - {"--help", "-h"} == listed


def test_every_option_of_the_evaluation_is_in_its_section_or_shared() -> None:
    shown = options_in(help_of("eval").partition("Arguments")[2].partition("Examples")[0])
    listed = options_in(section("Evaluate").partition("| option")[2].partition("\n\n")[0])
    assert {"--labels", "--json", "--plots"} <= listed <= shown
    shared = options_in(section("Options"))
    assert shown - listed - {"--help", "-h"} <= shared
    assert not {"--top-k", "--files-from", "--out"} & shown


def test_every_option_of_features_is_in_their_section_or_shared() -> None:
    shown = options_in(help_of("embed").partition("Arguments")[2].partition("Examples")[0])
    listed = options_in(section("Features").partition("| option")[2].partition("\n\n")[0])
    assert listed == {"--pool", "--normalize", "--half", "--out"}
    assert shown - listed - {"--help", "-h"} <= options_in(section("Options"))
    assert not {"--top-k", "--threshold", "--label", "--format", "--color"} & shown


def test_every_option_of_training_is_in_its_section_or_shared() -> None:
    shown = options_in(help_of("train").partition("Arguments")[2].partition("Examples")[0])
    listed = options_in(section("Train").partition("| option")[2].partition("\n\n")[0])
    assert {"--val", "--from-scratch", "--finetune", "--pool", "--epochs", "--out"} <= listed <= shown
    assert shown - listed - {"--help", "-h"} <= options_in(section("Options"))
    assert not {"--files-from", "--top-k", "--preprocess", "--compile"} & shown


def test_every_option_in_the_readme_exists() -> None:
    table = "\n".join(line.split("|")[1] for line in section("Options").splitlines() if line.startswith("| `-"))
    assert options_in(table) <= options_in(help_of("batch"))


def test_the_tables_of_codes_are_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", section("What it writes"), re.M)
    assert dict(rows) == ERROR_CODES


def test_every_exit_status_is_explained() -> None:
    rows = re.findall(r"^\| (\d) \| ", section("What it writes"), re.M)
    assert [int(row) for row in rows] == [int(status) for status in ExitStatus]


def test_the_map_of_the_tree_is_the_tree() -> None:
    """`python -m tests.tree` prints the map anew."""
    drawn = section("The tree").partition("```")[2].partition("```")[0]
    assert drawn.partition("\n")[2] == tree()


@pytest.mark.parametrize(
    "command", ["", "classify", "batch", "merge", "embed", "eval", "train", "bench", "models", "models pull"]
)
def test_help_has_examples(command: str) -> None:
    assert "Examples:" in help_of(command)


@pytest.mark.parametrize("number", range(2))
def test_the_tour_shows_what_is_printed(number: int) -> None:
    """The two runs over the samples: but for rates and digits, which differ, and the table, which wants a terminal."""
    block = re.findall(r"```console\n\$ beit (classify samples.*?)\n(.*?)```", README, re.S)[number]
    arguments = block[0].removesuffix(" | cat").split()
    process = subprocess.run([sys.executable, "-m", "beitcli", *arguments], capture_output=True, text=True, cwd=ROOT)
    printed = [without_digits(line) for line in (*process.stderr.splitlines(), *process.stdout.splitlines())]
    shown = [line for line in block[1].splitlines() if not re.search("images/s|[█-▏]|^source  ", line)]
    expected = [without_digits(line) for line in shown]
    assert expected
    assert set(expected) <= set(printed)


def test_the_features_show_what_is_printed(tmp_path: Path) -> None:
    block = section("Features").partition("```console\n")[2].partition("```")[0]
    embed, shown, index = re.split(r"^\$ cat features.npy.index.csv\n|(?<=out features.npy\n)", block, flags=re.M)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    command = [sys.executable, "-m", "beitcli", *embed.split()[2:]]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = [[line for line in text.splitlines() if "images/s" not in line] for text in (process.stderr, shown)]
    assert lines[0] == lines[1]
    assert (tmp_path / "features.npy.index.csv").read_text() == index


def test_the_evaluation_shows_what_is_printed(tmp_path: Path) -> None:
    """But for the rate, and digits that depend on the processor."""
    block = section("Evaluate").partition("```console\n")[2].partition("```")[0]
    *commands, line = re.findall(r"^\$ (.*)$", block, re.M)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    subprocess.run(["sh", "-ec", "\n".join(commands)], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "beitcli", *line.split()[1:]]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    printed = (process.stderr + process.stdout.rstrip()).splitlines()
    shown = block.partition(f"$ {line}\n")[2].rstrip().splitlines()
    assert [each for each in map(without_digits, printed) if "images/s" not in each] == [
        each for each in map(without_digits, shown) if "images/s" not in each
    ]


def without_digits(line: str) -> str:
    """Scores without their decimals, which depend on the processor's instructions."""
    return re.sub(r"(?<=\b0\.)\d+", "", line)
