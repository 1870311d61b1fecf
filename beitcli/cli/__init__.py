"""The command-line app, and the single place that turns errors into a message and an exit status."""

import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated

import typer

from beitcli import __version__, signals
from beitcli.cli import notices
from beitcli.cli.batch import EXAMPLES as BATCH_EXAMPLES
from beitcli.cli.batch import batch
from beitcli.cli.bench import EXAMPLES as BENCH_EXAMPLES
from beitcli.cli.bench import bench
from beitcli.cli.classify import EXAMPLES as CLASSIFY_EXAMPLES
from beitcli.cli.classify import classify
from beitcli.cli.embed import EXAMPLES as EMBED_EXAMPLES
from beitcli.cli.embed import embed
from beitcli.cli.evaluate import EXAMPLES as EVAL_EXAMPLES
from beitcli.cli.evaluate import evaluate
from beitcli.cli.flags import flags_of
from beitcli.cli.gallery import EXAMPLES as REPORT_EXAMPLES
from beitcli.cli.gallery import report
from beitcli.cli.help import EXAMPLES as HELP_EXAMPLES
from beitcli.cli.help import show_help
from beitcli.cli.merge import EXAMPLES as MERGE_EXAMPLES
from beitcli.cli.merge import merge
from beitcli.cli.models import EXAMPLES as MODELS_EXAMPLES
from beitcli.cli.models import models
from beitcli.cli.options import examples
from beitcli.cli.pretrain import EXAMPLES as PRETRAIN_EXAMPLES
from beitcli.cli.pretrain import pretrain
from beitcli.cli.process import has_left_its_folder, open_standard_streams, own_process
from beitcli.cli.runs import EXAMPLES as RUNS_EXAMPLES
from beitcli.cli.runs import runs
from beitcli.cli.sort import EXAMPLES as SORT_EXAMPLES
from beitcli.cli.sort import sort
from beitcli.cli.tag import EXAMPLES as TAG_EXAMPLES
from beitcli.cli.tag import tag
from beitcli.cli.train import EXAMPLES as TRAIN_EXAMPLES
from beitcli.cli.train import train
from beitcli.errors import BeitError, ExitStatus
from beitcli.records import printable

_HELP_NAMES = {"help_option_names": ["-h", "--help"]}


app = typer.Typer(
    name="beit",
    help="Classify images in bulk with BEiT vision transformers.",
    epilog=examples("beit classify photo.jpg", "beit batch ./images --out preds.csv", "beit models", "beit help"),
    context_settings=_HELP_NAMES,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)
app.command(epilog=CLASSIFY_EXAMPLES)(classify)
app.command(epilog=BATCH_EXAMPLES)(batch)
app.command(epilog=MERGE_EXAMPLES)(merge)
app.command(epilog=RUNS_EXAMPLES)(runs)
app.command(epilog=SORT_EXAMPLES)(sort)
app.command(epilog=TAG_EXAMPLES)(tag)
app.command(epilog=EMBED_EXAMPLES)(embed)
app.command(epilog=REPORT_EXAMPLES)(report)
app.command("eval", epilog=EVAL_EXAMPLES)(evaluate)
app.command(epilog=BENCH_EXAMPLES)(bench)
app.command(epilog=TRAIN_EXAMPLES)(train)
app.command(epilog=PRETRAIN_EXAMPLES)(pretrain)
app.add_typer(models, name="models", epilog=MODELS_EXAMPLES)
app.command("help", epilog=HELP_EXAMPLES)(show_help)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"beit {__version__}")  # noqa: T201
        raise typer.Exit


@app.callback()
def beit(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  # handled by its callback
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Classify images in bulk with BEiT vision transformers."""
    notices.flags.update(flags_of(context.command, context.invoked_subcommand))
    if context.invoked_subcommand is None:
        print(context.get_help())  # noqa: T201
        raise typer.Exit(ExitStatus.USAGE)


def main() -> int:
    """Run the command line and return its exit status; after a signal, die by that signal.

    Errors print one line and an optional hint; with BEIT_DEBUG set they keep their traceback.
    """
    open_standard_streams()
    debugging = bool(os.environ.get("BEIT_DEBUG"))
    if not debugging:
        warnings.simplefilter("ignore")  # aimed at developers
    own_process()
    try:
        status = typer.main.get_command(app).main(prog_name="beit", standalone_mode=False)
        _flush()
        return int(status or ExitStatus.OK)
    except signals.Stopped as stopped:
        signals.die_by(stopped.signal_number)
    except BeitError as error:
        if debugging:
            raise
        status = error.exit_status
        if status == ExitStatus.USAGE and has_left_its_folder():  # a relative path, where there was a folder for it
            status = ExitStatus.FAILED
        return _report(str(error), error.hint, status)
    except typer.TyperException as error:
        message = error.format_message().rstrip(".").replace("Value error, ", "")  # prefix added by pydantic
        return _report(message, "`--help` lists the options", error.exit_code)
    except SystemExit as ended:  # raised by rich and typer when a pipe is closed, and by completion with its own status
        return ExitStatus.OK if ended.code == 1 else int(ended.code or 0)


def _flush() -> None:
    """Flush standard output. Raises OutputError on failure, unless the reader closed the pipe."""
    if sys.stdout is not None:
        with suppress(BrokenPipeError):
            sys.stdout.flush()


def _report(message: str, hint: str | None, exit_status: int) -> int:
    notices.print_line(f"beit: error: {printable(message)}")
    if hint:
        notices.print_line(f"hint: {printable(hint)}")
    return int(exit_status)
