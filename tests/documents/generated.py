"""The generated documents: `python -m tests.documents.generated` writes them anew.

`cli.md` is the help of every command, `tree.md` the first docstring line of every module, and `table.svg` a run of
`beit classify` over the samples, as a terminal shows it.
"""

import io
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from unittest.mock import patch

import typer
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.conftest import ROOT, SAMPLES
from tests.documents.blocks import MANUAL
from tests.tree import tree

COMMANDS = (
    "",
    "classify",
    "batch",
    "merge",
    "runs",
    "report",
    "sort",
    "tag",
    "embed",
    "eval",
    "train",
    "pretrain",
    "bench",
    "models",
    "models show",
    "models pull",
    "help",
)

_PICTURED = ("classify", "photos", "-m", "demo", "-k", "3", "--dtype", "fp32")
_COLUMNS = 78

_THEME = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [
        *((72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34)),
        *((88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)),
    ],
    [
        *((110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65)),
        *((121, 192, 255), (210, 168, 255), (86, 212, 221), (255, 255, 255)),
    ],
)

_SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px;
  line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def cli_chapter() -> str:
    """The text of `cli.md`."""
    return "".join(_cli_parts())


def _cli_parts() -> Iterator[str]:
    yield "# Every command and option, as `--help` prints them\n"
    for command in COMMANDS:
        yield f"\n## {f'beit {command}'.rstrip()}\n\n```text\n{help_of(command)}\n```\n"


@cache
def help_of(command: str) -> str:
    """The help of a command in 100 columns, which leave room for the name of every option."""
    from beitcli.cli.commands import app_with, needed

    printed = io.StringIO()
    with redirect_stdout(printed), patch.dict(os.environ, COLUMNS="100", TERM="dumb"):
        arguments = [*command.split(), "--help"]
        typer.main.get_command(app_with(needed(arguments))).main(arguments, prog_name="beit", standalone_mode=False)
    return "\n".join(line.rstrip() for line in printed.getvalue().strip("\n ").splitlines())


def tree_chapter() -> str:
    """The text of `tree.md`."""
    return f"# The tree: every module in one line\n\n```text\n{tree()}```\n"


def picture() -> str:
    """The text of `table.svg`: three photographs and half of one, classified by the demonstration model."""
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        shutil.copytree(SAMPLES, photos)
        (photos / "half.jpg").write_bytes((photos / "cat.jpg").read_bytes()[:20_000])
        printed = _on_a_terminal([sys.executable, "-m", "beitcli", *_PICTURED], folder)
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "bright_black"), " ".join(("beit", *_PICTURED))))
    console.print(Text.from_ansi(printed), end="")
    return console.export_svg(title="beit", theme=_THEME, code_format=_SVG, unique_id="beit")


def _on_a_terminal(command: list[str], folder: str) -> str:
    """Output of a command on a terminal, escape codes included; notices go nowhere."""
    ours, theirs = pty.openpty()
    terminal = {"COLUMNS": str(_COLUMNS), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "BEIT_DEVICE": "cpu"}
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | terminal
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    ):
        os.close(theirs)
        printed = b"".join(_read(ours))
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")


def _read(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux ends a terminal that nobody holds any more with an error
            return
        if not data:
            return
        yield data


if __name__ == "__main__":
    for name, text in (("cli.md", cli_chapter()), ("tree.md", tree_chapter()), ("table.svg", picture())):
        (MANUAL / name).write_text(text, encoding="utf-8")
