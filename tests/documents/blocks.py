"""Fenced blocks of the documents, run as a reader would: in order, in one shell, in one folder.

- `console`: commands after `$ ` (continued after `> `), each with what it prints, standard error included.
- `sh`: commands that have to succeed.
- `python`: has to succeed; a `text` block behind it is what it prints. The blocks of a document share one process,
  but for scripts with `__name__ == "__main__"`, which spawn others.
- Anything with `not-run` behind its language needs what a test has not: its `beit` commands are only parsed.
- A block under `<!-- set-up -->` or `<!-- tests -->` is run by `.ci/run`.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.conftest import ROOT, SAMPLES

MANUAL = ROOT / "beitcli" / "manual"
GENERATED = (MANUAL / "cli.md", MANUAL / "tree.md")
WRITTEN = [ROOT / "README.md", *(path for path in sorted(MANUAL.glob("*.md")) if path not in GENERATED)]

_FENCED = re.compile(r"^(?:<!-- ([\w-]+) -->\n)?```(\w*)( not-run)?\n(.*?)^```$", re.M | re.S)
_END, _BETWEEN = "\036", "\035"  # separators of ASCII: no output has them


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, whether tests run it, and its text."""

    language: str
    is_run: bool
    text: str


@dataclass(frozen=True)
class Step:
    """One command or script, and the output shown for it, None if none is."""

    text: str
    shown: str | None
    is_python: bool = False

    @property
    def is_script(self) -> bool:
        """A Python program in a process of its own."""
        return self.is_python and '__name__ == "__main__"' in self.text


@dataclass(frozen=True)
class Outcome:
    """A step as it went: its exit status and what it printed."""

    step: Step
    status: int
    printed: str


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a document in order."""
    for marker, language, excluded, text in _FENCED.findall(path.read_text()):
        yield Block(language, not marker and not excluded, text)


def steps(path: Path) -> list[Step]:
    """Everything in a document that is run."""
    found: list[Step] = []
    last: Block | None = None
    for block in blocks(path):
        if block.language == "text" and last and last.language == "python" and last.is_run:
            found[-1] = replace(found[-1], shown=block.text)
        elif block.is_run and block.language == "console":
            found.extend(_commands(block.text))
        elif block.is_run and block.language in ("sh", "python"):
            found.append(Step(block.text, None, block.language == "python"))
        last = block
    return found


def _commands(text: str) -> Iterator[Step]:
    for command, continued, shown in re.findall(r"^\$ (.*\n)((?:> .*\n)*)((?:(?!\$ ).*\n)*)", text, re.M):
        yield Step(command + re.sub("^> ", "", continued, flags=re.M), shown)


def run(document: list[Step], folder: Path) -> list[Outcome]:
    """Run the steps in a folder that is empty but for a copy of `samples`, with `beit` and `python` on the path."""
    programs = folder / ".bin"
    programs.mkdir()
    for name, arguments in (("beit", "-m beitcli "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    shutil.copytree(SAMPLES, folder / "samples")
    shared = [step for step in document if step.is_python and not step.is_script]
    (folder / ".shared.py").write_text(f"\nprint(end='{_BETWEEN}', flush=True)\n".join(step.text for step in shared))
    lines = [f'export BEIT_DEVICE=cpu PATH={shlex.quote(str(programs))}:"$PATH" PYTHONPATH={shlex.quote(str(ROOT))}']
    for number, step in enumerate(document):
        command = step.text
        if step.is_script:
            (folder / f".script{number}.py").write_text(step.text)
            command = f"python .script{number}.py"
        elif step.is_python:
            command = "python .shared.py" if step is shared[0] else ":"
        strict = "set -e\n" if step.shown is None else ""
        lines.append(f"( {strict}{command}\n); status=$?; printf '\\036%d\\036' $status; (exit $status)")
    process = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    parts = process.stdout.split(_END)
    outcomes = [
        Outcome(step, int(status), printed)
        for step, printed, status in zip(document, parts[0::2], parts[1::2], strict=False)
    ]
    return list(_apart(outcomes, shared))


def _apart(outcomes: list[Outcome], shared: list[Step]) -> Iterator[Outcome]:
    """The blocks of the shared process, each with its own output."""
    together = next((outcome for outcome in outcomes if shared and outcome.step is shared[0]), None)
    printed = iter(together.printed.split(_BETWEEN)) if together else iter(())
    for outcome in outcomes:
        if together and any(outcome.step is step for step in shared):
            own = together.printed if together.status else next(printed, "")
            yield replace(outcome, status=together.status, printed=own)
        else:
            yield outcome


def matches(shown: str, printed: str) -> bool:
    """Equality but for rates and decimals of scores, which depend on the machine; a line `…` stands for any lines."""
    pattern = "".join("(?:.*\n)*" if line == "…" else re.escape(line) + "\n" for line in stable(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in stable(printed))) is not None


def stable(text: str) -> list[str]:
    """The lines of an output without what differs from machine to machine."""
    lines = (re.sub(r"^[\d.,]+ images/s.*", "images/s", line.rstrip()) for line in text.rstrip().splitlines())
    return [re.sub(r"(?<=\b0\.)\d+", "", line) for line in lines]


def commands_of_beit(text: str) -> Iterator[list[str]]:
    """The arguments of every call of `beit` in lines of shell."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        called: list[str] | None = None
        for word in [*lexer, ";"]:
            if called is not None and re.fullmatch(r"[|&;()<>\\]+", word):
                yield called
                called = None
            elif called is not None:
                called.append(word)
            elif word == "beit" or word.endswith("/beit"):
                called = []
