"""Allowed imports between packages, and commands that never import torch."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests import preloaded

PACKAGE = Path(__file__).parent.parent / "beitcli"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))

MAY_IMPORT = {
    "": {"api", "errors", "records"},
    "errors": set(),
    "records": set(),
    "timings": set(),
    "tables": set(),
    "signals": {"errors"},
    "urls": set(),
    "file_system": {"records"},
    "inputs": {"", "errors", "records", "urls", "inputs"},
    "model": {"", "errors", "file_system", "records", "model"},
    "pipeline": {"", "errors", "records", "timings", "signals", "inputs", "model"},
    "workers": {"", "errors", "file_system", "records", "timings", "signals", "inputs", "model", "pipeline", "workers"},
    "bench": {"", "errors", "records", "timings", "inputs", "model", "pipeline", "tables", "bench"},
    "outputs": {"errors", "file_system", "records", "timings", "outputs"},
    "ledger": {"errors", "file_system", "records", "urls", "outputs", "ledger"},
    "evaluation": {"errors", "records", "model", "tables", "evaluation"},
    "gallery": {"errors", "records", "inputs", "outputs", "evaluation", "gallery"},
    "training": {"", "errors", "file_system", "records", "signals", "inputs", "model", "training"},
    "decisions": {"errors", "inputs", "records"},
    "sorting": {"decisions", "errors", "file_system", "inputs", "records", "sorting"},
    "tagging": {"errors", "file_system", "records", "tagging"},
    "jobs": {
        *("", "errors", "records", "timings", "signals", "inputs", "model", "outputs", "pipeline", "workers"),
        *("decisions", "evaluation", "file_system", "gallery", "ledger", "sorting", "tagging", "training", "jobs"),
    },
    "api": {"errors", "inputs", "ledger", "model", "pipeline", "records", "jobs"},
    "cli": {
        *("", "errors", "records", "timings", "signals", "inputs", "model", "outputs", "pipeline"),
        *("bench", "evaluation", "sorting", "tables", "tagging", "training", "jobs", "cli"),
    },
    "__main__": {"cli"},
}
"""Each subpackage or module and those it may import; `""` is the package itself: the version, and the public names."""

ON_A_TERMINAL = ("typer", "rich", "tqdm", "click")

QUESTION_WORDS = ("What ", "How ", "Which ", "Whether ", "Where ", "Who ", "Why ")

THIRD_PERSON = (
    *(
        "Chooses ",
        "Creates ",
        "Decodes ",
        "Fits ",
        "Flushes ",
        "Gives ",
        "Kills ",
        "Lists ",
        "Moves ",
        "Pickles ",
        "Prints ",
    ),
    *("Raises ", "Reads ", "Removes ", "Returns ", "Saves ", "Trains ", "Turns ", "Warns ", "Writes "),
)

NAMES_A_FLAG = {
    # messages of failures: records hold them
    " pixels (--max-pixels)",
    " (--max-pixels)",
    " bytes (--max-pixels)",
    " bytes (--url-max-bytes)",
    " s (--url-timeout)",
    " s (--decode-timeout)",
    # a reason that the JSON of `beit eval` counts
    "folder below --max-depth",
    # rows of the tables that `beit eval` and `beit bench` print, and options to copy from there
    "--preprocess ",
    " with --preprocess ",
    "beit --version",
    "; with --fast-decode it is ",
    "--dtype ",
    " --compile",
    " -b ",
    " -j ",
}
"""Parts of text outside `cli` that name a flag: no message of an error or a log."""

HEAVY = ("torch", "transformers", "PIL", "numpy", "pyarrow", "sklearn", "matplotlib", "accelerate")


def top_level(module: str) -> str:
    return module.removeprefix("beitcli").removeprefix(".").partition(".")[0]


def imports(path: Path, inside_functions: bool) -> set[str]:
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if inside_functions or not (is_function or is_for_types):
            pending.extend(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_allowed_imports(path: Path) -> None:
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    own = "" if name == "__init__" else name
    ours = {top_level(module) for module in imports(path, inside_functions=True) if module.split(".")[0] == "beitcli"}
    assert ours <= MAY_IMPORT[own]


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "jobs"], ids=lambda path: path.name)
def test_jobs_know_no_terminal_and_print_nothing(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path, inside_functions=True)} & set(ON_A_TERMINAL)
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not {ast.unparse(call) for call in calls} & {"print", "exit", "sys.exit", "os._exit"}


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_docstrings_name_or_order_and_never_begin_as_a_question(path: Path) -> None:
    texts = [
        node.value.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    assert not [text for text in texts if text.startswith(QUESTION_WORDS)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_of_functions_are_in_the_imperative(path: Path) -> None:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions)]
    assert not [node.name for node in nodes if (ast.get_docstring(node) or "").startswith(THIRD_PERSON)]


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent.name != "cli"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_messages_and_docstrings_name_parameters_and_no_flags(path: Path) -> None:
    """A flag alone is an argument of a process, or a key."""
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    flags = [text for text in texts if isinstance(text, str) and re.search(r"--[a-z]|(?<!python) -[a-zA-Z0]\b", text)]
    assert not {text for text in flags if not re.fullmatch(r"--[a-z-]+", text)} - NAMES_A_FLAG


@pytest.mark.parametrize("document", [".github/CONTRIBUTING.md", "beitcli/manual/design.md"])
def test_the_floors_in_the_documents_are_all_there_are(document: str) -> None:
    block = re.search(r"^cli/ .*?(?=^```)", (PACKAGE.parent / document).read_text(), re.M | re.S)
    assert block
    assert set(re.findall(r"\w+", block[0])) >= set(MAY_IMPORT) - {"", "__main__"}


def test_one_module_imports_ray() -> None:
    assert [path.name for path in MODULES if "ray" in imports(path, inside_functions=True)] == ["ray_actors.py"]


def test_every_text_that_may_name_a_flag_exists() -> None:
    sources = [ast.walk(ast.parse(path.read_text())) for path in MODULES]
    assert {node.value for nodes in sources for node in nodes if isinstance(node, ast.Constant)} >= NAMES_A_FLAG


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent.name in ("outputs", "ledger", "cli", "jobs")], ids=lambda path: path.name
)
def test_writers_and_commands_import_nothing_heavy_at_the_top(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path, inside_functions=False)} & set(HEAVY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["classify", "--help"],
        ["--version"],
        ["models"],
        ["classify", "no-such-file"],
        ["eval", "--help"],
        ["eval", "no-such-folder", "-m", "demo"],
        ["eval", "val", "-m", "demo", "--plots", "."],
        ["train", "--help"],
        ["train", "no-such-folder", "-m", "demo", "--out", "model"],
        ["train", "no-such-folder", "--finetune", "-m", "demo", "--out", "model"],
        ["train", "val", "--from-scratch", "small", "--out", "model"],
        ["pretrain", "--help"],
        ["pretrain", "no-such-folder", "--out", "model"],
        ["bench", "--help"],
        ["bench", "no-such-file", "--vs", "transformers"],
        ["batch", ".", "--out", "x.unknown"],
        ["batch", "no-such-file", "--engine", "ray", "--out", "x.csv"],
        ["batch", "--files-from", "/dev/null", "-m", "demo"],
        ["embed", "--help"],
        ["embed", ".", "--out", "x.unknown"],
        ["report", "--help"],
        ["report", "no-such-file", "--out", "page.html"],
        ["runs", "--help"],
        ["runs", "no-such-file"],
        ["merge", "all.csv.gz", "part.jsonl"],
        ["sort", "part.jsonl", "--to", "sorted", "--dry-run"],
        ["tag", "part.jsonl"],
        ["--show-completion", "bash"],
        ["help"],
        ["help", "resume"],
    ],
    ids=" ".join,
)
def test_light_work_never_imports_torch(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "part.jsonl").touch()
    (tmp_path / "val" / "no-such-class").mkdir(parents=True)
    (tmp_path / "val" / "no-such-class" / "a.jpg").touch()
    refused = ("torch", "transformers", "PIL", "pyarrow", "sklearn", "scipy", "matplotlib", "ray")
    process = preloaded.beit(arguments, tmp_path, light=True, refused=refused)
    assert process.returncode != 70, process.stderr


def test_a_class_name_is_used_once() -> None:
    names = [
        node.name for path in MODULES for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    ]
    assert not [name for name, count in Counter(names).items() if count > 1 and not name.startswith("_")]
