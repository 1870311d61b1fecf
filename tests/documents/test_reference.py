"""Options, codes, statuses, modules and files in the documents, compared with those that there are."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from beitcli.cli.commands import app_with
from beitcli.cli.flags import flags_of, in_flags
from beitcli.errors import ERROR_CODES, ExitStatus
from tests.conftest import ROOT
from tests.documents.blocks import MANUAL, WRITTEN
from tests.documents.generated import COMMANDS, cli_chapter, help_of, picture, tree_chapter

README = ROOT / "README.md"
ALL = [*WRITTEN, MANUAL / "cli.md", ROOT / ".github" / "CONTRIBUTING.md"]


def prose(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z0][\w-]*", text))


def options_in_code(path: Path) -> set[str]:
    spans = re.findall(r"`([^`]+)`", prose(path))
    return set().union(*(options_in(span) for span in spans if not span.startswith(("pip ", "pytest ", "ray "))))


def options_of(command: str) -> set[str]:
    panels = [line for line in help_of(command).splitlines() if line.startswith("│")]
    return options_in("\n".join(re.findall(r"^│ [ *]*(-[-\w]+(?: +--?[\w-]+)*)", "\n".join(panels), re.M)))


OPTIONS = set().union(*map(options_of, COMMANDS))


@pytest.mark.parametrize(("name", "text"), [("cli.md", cli_chapter), ("tree.md", tree_chapter), ("table.svg", picture)])
def test_generated_documents_are_up_to_date(name: str, text: Callable[[], str]) -> None:
    """`python -m tests.documents.generated` writes them anew."""
    assert (MANUAL / name).read_text() == text()


def test_the_picture_fetches_nothing() -> None:
    svg = (MANUAL / "table.svg").read_text()
    assert re.findall(r"https?://[^\"']+", svg) == ["http://www.w3.org/2000/svg"]
    assert "photos/half.jpg" in svg.replace("&#160;", " ")


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 12_000


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    assert "Examples:" in help_of(command)


def test_every_option_is_explained_in_a_chapter() -> None:
    assert len(OPTIONS) > 80
    assert set().union(*map(options_in_code, WRITTEN)) >= OPTIONS - {"--show-completion"}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_every_option_in_the_text_exists(path: Path) -> None:
    others = {"--now", "--user", "--csv", "--ipc", "--signal"}  # of systemctl, sqlite3, docker and sbatch
    assert options_in_code(path) - others <= OPTIONS


@pytest.mark.parametrize(
    ("command", "chapter"),
    [
        *(("bench", "speed"), ("embed", "embed"), ("eval", "evaluate"), ("sort", "sort"), ("tag", "sort")),
        *(("train", "train"), ("pretrain", "pretrain")),
    ],
)
def test_what_a_command_has_alone_is_in_its_chapter(command: str, chapter: str) -> None:
    assert options_of(command) - options_of("batch") <= options_in_code(MANUAL / f"{chapter}.md")


def test_the_tables_of_codes_are_the_code() -> None:
    flags = flags_of(get_command(app_with()), None)
    table = re.sub(r"`(--[\w-]+)`", r"\1", (MANUAL / "outputs.md").read_text())
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)
    assert dict(rows) == {code: in_flags(meaning, flags.get) for code, meaning in ERROR_CODES.items()}
    listed = README.read_text().partition("Error codes of records: ")[2].partition("(")[0]
    assert re.findall(r"`(\w+)`", listed) == list(ERROR_CODES)


@pytest.mark.parametrize("path", [README, MANUAL / "outputs.md"], ids=lambda path: path.stem)
def test_every_exit_status_is_explained(path: Path) -> None:
    rows = re.findall(r"^\| (\d) \| ", path.read_text(), re.M)
    assert [int(row) for row in rows] == [int(status) for status in ExitStatus]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", prose(path))
    assert not [link for link in links if not (path.parent / link).exists()]


def test_every_chapter_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(beitcli/manual/(\w+)\.md\)", README.read_text()))
    assert linked == {path.stem for path in MANUAL.glob("*.md")}


@pytest.mark.parametrize("path", sorted(MANUAL.glob("*.md")), ids=lambda path: path.stem)
def test_a_chapter_begins_with_its_title(path: Path) -> None:
    assert re.match(r"# .{10,90}\n\n", path.read_text())
