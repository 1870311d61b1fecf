"""The map of the tree, from the first line of each module's docstring: the chapter `tree` of the manual."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
BESIDE = {
    "beitcli/manual/": "the chapters of the manual, which `beit help` shows",
    "samples/": "three photographs to try it on",
    "tests/": "mirrors the rooms; real files, processes, sockets and signals",
    ".ci/": "run: what CI runs; constraints.txt: the tested set of packages",
}
_WIDTH = 32


def tree() -> str:
    """The folders and modules of the package in order, with what each of them is."""
    lines = [_line("beitcli/", 0, _first_line(ROOT / "beitcli" / "__init__.py")), *_folder(ROOT / "beitcli", 1)]
    return "\n".join([*lines, *(_line(name, 0, text) for name, text in BESIDE.items())]) + "\n"


def _folder(folder: Path, depth: int) -> Iterator[str]:
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.suffix in (".cpp", ".h", ".js"):
            yield _line(path.name, depth, path.read_text().splitlines()[0].lstrip("/ ").rstrip("."))
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield _line(path.name, depth, _first_line(path))
        elif (path / "__init__.py").exists():
            yield _line(f"{path.name}/", depth, _first_line(path / "__init__.py"))
            yield from _folder(path, depth + 1)


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].partition(". ")[0].rstrip(".")


def _line(name: str, depth: int, text: str) -> str:
    return f"{'  ' * depth + name:<{_WIDTH}}{text}".rstrip()
