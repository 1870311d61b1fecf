"""`beit models`: list the checkpoints with an alias, describe one, and download one ahead of a run."""

import csv
import sys
from contextlib import suppress
from itertools import chain
from typing import Annotated

import typer

from beitcli.cli import notices
from beitcli.cli.options import examples
from beitcli.errors import OutputError, UsageError
from beitcli.model.catalog import KNOWN, Known
from beitcli.model.checkpoint import find_repository, open_checkpoint
from beitcli.model.description import describe
from beitcli.outputs.destination import ReaderClosed, writing

EXAMPLES = examples("beit models", "beit models show demo", "beit models pull base-224")

models = typer.Typer(help="List the models with an alias, or show or fetch one.", invoke_without_command=True)

_COLUMNS = ("alias", "model", "pixels", "labels", "parameters_m", "top1", "top5", "cached")


@models.callback()
def list_models(context: typer.Context) -> None:
    """List the models with an alias: a table on a terminal, tab-separated elsewhere.

    Top-1 and top-5 are published accuracy in percent, measured with `--preprocess paper` on ImageNet-1k; the demo's on
    CIFAR-10.
    """
    if context.invoked_subcommand:
        return
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    rows = [_row(known) for known in KNOWN]
    if not sys.stdout.isatty():
        csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows([_COLUMNS, *rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*_COLUMNS, box=None)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


@models.command(
    epilog=examples("beit models pull base-224", "beit models pull google/vit-base-patch16-224 --revision main")
)
def pull(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Alias or Hub id.")],
    revision: Annotated[str | None, typer.Option(metavar="REV", help="Hub commit, tag or branch.")] = None,
) -> None:
    """Download a model, or bring the cached one up to date."""
    notices.set_up(quiet=False, verbose=False)
    if not find_repository(name, revision).on_hub:
        raise UsageError(f"`{name}` is on this machine already: there is nothing to download")
    checkpoint = open_checkpoint(name, revision, refresh=True)
    checkpoint.weight_file()
    print(checkpoint.folder)  # noqa: T201


@models.command(epilog=examples("beit models show demo", "beit models show base-224 | grep -i fox"))
def show(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Alias, Hub id or folder.")],
    revision: Annotated[str | None, typer.Option(metavar="REV", help="Hub commit, tag or branch.")] = None,
) -> None:
    """Print a model's size, preprocessing and place, then each label behind its index, all tab-separated.

    Of a model that is not on this machine, only the description is downloaded.
    """
    notices.set_up(quiet=False, verbose=False)
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    checkpoint = open_checkpoint(name, revision)
    rows = chain(describe(checkpoint), enumerate(checkpoint.labels))
    with suppress(ReaderClosed), writing():
        csv.writer(sys.stdout, delimiter="\t", lineterminator="\n").writerows(rows)
        sys.stdout.flush()


def _row(known: Known) -> tuple[str, ...]:
    location = "(bundled)" if known.alias == "demo" else known.location
    accuracy = ("" if share is None else f"{share:g}" for share in (known.top1, known.top5))
    cached = "yes" if _is_cached(known) else "no"
    return known.alias, location, str(known.pixels), known.labels, f"{known.parameters:.1f}", *accuracy, cached


def _is_cached(known: Known) -> bool:
    return known.alias == "demo" or find_repository(known.alias, None).has_weights_here()
