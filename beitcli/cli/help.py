"""`beit help`: the chapters of the manual."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.resources import files
from typing import Annotated

import typer

from beitcli.cli.options import examples
from beitcli.errors import OutputError, UsageError

EXAMPLES = examples("beit help", "beit help resume", "beit help recipes | less")

_MANUAL = files("beitcli") / "manual"


def _chapters() -> list[str]:
    return sorted(path.name.removesuffix(".md") for path in _MANUAL.iterdir() if path.name.endswith(".md"))


def show_help(
    chapter: Annotated[
        str | None,
        typer.Argument(metavar="CHAPTER", help="One of the chapters that `beit help` lists.", autocompletion=_chapters),
    ] = None,
) -> None:
    """List the chapters of the manual, or show one.

    A terminal shows a chapter in its own width, through `PAGER` or less; a pipe gets its Markdown.
    """
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    chapters = _chapters()
    if chapter is None:
        width = max(map(len, chapters))
        _write("".join(f"{name:<{width}}  {_title(name)}\n" for name in chapters))
    elif chapter not in chapters:
        raise UsageError(f"no chapter `{chapter}` in the manual", f"one of {', '.join(chapters)}")
    elif sys.stdout.isatty():
        _page(_drawn(_text(chapter)))
    else:
        _write(_text(chapter))


def _write(text: str) -> None:
    """Write to standard output in UTF-8, whatever the locale. Raises OutputError, but not for a closed pipe."""
    try:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def _text(chapter: str) -> str:
    return (_MANUAL / f"{chapter}.md").read_text(encoding="utf-8")


def _title(chapter: str) -> str:
    return _text(chapter).partition("\n")[0].removeprefix("# ")


def _drawn(text: str) -> str:
    """The Markdown as the terminal shows it, with its escape codes."""
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.theme import Theme

    console = Console(highlight=False, theme=Theme({"markdown.code": "bold cyan"}))  # its own has a black background
    with console.capture() as captured:
        console.print(Markdown(text, code_theme="ansi_dark"))
    return captured.get()


def _page(text: str) -> None:
    """Show the text in the user's pager; print it where there is none."""
    pager = _pager()
    if not pager:
        _write(text)
        return
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is the pager's, and ends what it shows or searches
    # `less` is to pass colours on and to end by itself on a short text, as git asks of it.
    subprocess.run(pager, input=text.encode(), env={"LESS": "FRX", **os.environ}, check=False)


def _pager() -> list[str]:
    """The command of the user's pager, empty where there is none to start."""
    try:
        command = shlex.split(os.environ.get("PAGER", "less"))
    except ValueError:  # a quote without its other half
        return []
    starts = command and shutil.which(command[0]) and os.environ.get("TERM") != "dumb"
    return command if starts else []
