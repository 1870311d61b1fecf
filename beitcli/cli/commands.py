"""The commands of `beit`, each imported when it is needed: all of them would take longer than a short run."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

from beitcli import __version__
from beitcli.cli import notices
from beitcli.cli.flags import Flag, flags_of
from beitcli.cli.options import examples
from beitcli.errors import ExitStatus

COMMANDS = {
    "classify": "classify.classify",
    "batch": "batch.batch",
    "merge": "merge.merge",
    "runs": "runs.runs",
    "sort": "sort.sort",
    "tag": "tag.tag",
    "embed": "embed.embed",
    "report": "gallery.report",
    "eval": "evaluate.evaluate",
    "bench": "bench.bench",
    "train": "train.train",
    "pretrain": "pretrain.pretrain",
    "models": "models.models",
    "help": "help.show_help",
}
"""Name -> module in this package, and what it calls the command."""


def needed(arguments: Sequence[str]) -> Iterable[str]:
    """The command that the arguments begin with; all, where they do not begin with one."""
    return arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS


def app_with(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The app with these commands."""
    app = typer.Typer(
        name="beit",
        help="Classify images in bulk with BEiT vision transformers.",
        epilog=examples("beit classify photo.jpg", "beit batch ./images --out preds.csv", "beit models", "beit help"),
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        invoke_without_command=True,
        callback=beit,
    )
    for name in names:
        module_name, attribute = COMMANDS[name].split(".")
        module = import_module(f"beitcli.cli.{module_name}")
        command: Any = getattr(module, attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, epilog=module.EXAMPLES)
        else:
            app.command(name, epilog=module.EXAMPLES)(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"beit {__version__}")  # noqa: T201
        raise typer.Exit


def beit(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  # handled by its callback
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Classify images in bulk with BEiT vision transformers."""
    own = flags_of(context.command, context.invoked_subcommand)
    notices.flag_of = lambda parameter: own.get(parameter) or _flags_of_all().get(parameter)
    if context.invoked_subcommand is None:
        print(context.get_help())  # noqa: T201
        raise typer.Exit(ExitStatus.USAGE)


@cache
def _flags_of_all() -> dict[str, Flag]:
    return flags_of(typer.main.get_command(app_with()), None)
