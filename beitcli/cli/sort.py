"""`beit sort`: images into a folder for each label, and back."""

from typing import Annotated, Any

import typer

from beitcli.cli import notices, progress
from beitcli.cli.options import Without, examples, with_options
from beitcli.cli.preview import print_preview
from beitcli.cli.sort_summary import announce, preview, summarize
from beitcli.cli.unprocessed import print_failures
from beitcli.errors import ExitStatus, UsageError
from beitcli.jobs import sorting as job
from beitcli.jobs.requests import Limits
from beitcli.jobs.result_files import ResultFiles
from beitcli.jobs.sorting import SortRequest
from beitcli.records import printable
from beitcli.sorting.plan import Failures, Mode

EXAMPLES = examples(
    "beit sort preds.csv --to sorted --dry-run",
    "beit sort preds.csv --to sorted --threshold 0.5",
    "beit sort preds.csv --to sorted --move --corrections corrections.csv",
    "beit sort --undo sorted",
)


def _switch(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", help=text, show_default=False)


@with_options
def sort(
    limits: Annotated[Limits, Without("fast_decode", "max_pixels", "decode_timeout")],
    results: Annotated[
        list[str] | None,
        typer.Argument(metavar="RESULTS", help="Files that `beit batch` wrote, in any format.", show_default=False),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="DIR", help="The folder that gets a folder for each label.", show_default=False),
    ] = None,
    copy: Annotated[bool, _switch("copy", "Copy the images: the default.")] = False,
    hardlink: Annotated[bool, _switch("hardlink", "Link them: a second name for the same bytes.")] = False,
    symlink: Annotated[bool, _switch("symlink", "Link to their paths.")] = False,
    move: Annotated[bool, _switch("move", "Move them.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="P", help="Images whose best label scores below P go to unsure/."),
    ] = None,
    failures: Annotated[
        Failures, typer.Option("--failures", help="Images that failed go to failed/CODE/, or are left where they are.")
    ] = "folder",
    corrections: Annotated[
        str | None,
        typer.Option(
            "--corrections", metavar="FILE", help="A table of paths and labels, which count before the results."
        ),
    ] = None,
    dedupe: Annotated[bool, _switch("dedupe", "Leave images whose bytes are in their folder already.")] = False,
    undo: Annotated[
        str | None,
        typer.Option("--undo", metavar="DIR", help="Instead: take back everything that was sorted into DIR."),
    ] = None,
    dry_run: Annotated[bool, _switch("dry-run", "Count what would be done, without doing it.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices or summary; errors only.")] = False,
) -> None:
    """Sort images into a folder for each label, or take that back.

    Nothing is overwritten, and each step is in DIR/beit-sort.jsonl before it is made: after a kill the same command
    goes on, and --undo takes all back. Files of the image's name that end in .xmp or .json, and raw files, go with it.
    """
    notices.set_up(quiet, verbose=False)
    if undo is not None:
        if results or to is not None:
            raise UsageError(f"`undo={undo}` takes no results", "name the sorted folder alone")
        raise typer.Exit(_undo(undo, dry_run, quiet))
    if to is None:
        raise UsageError("no folder to sort into", "name one by `to=DIR`")
    mode = _mode({"copy": copy, "hardlink": hardlink, "symlink": symlink, "move": move})
    files = ResultFiles(tuple(results or ()), corrections, threshold)
    request = SortRequest(files, to, mode, failures, dedupe, limits)
    if dry_run:
        preview(request, quiet)
        return
    with progress.observer(quiet) as observer:
        done = job.sort(request, observer, lambda plan: announce(plan, quiet))
    if not quiet:
        summarize(done, mode)
    raise typer.Exit(print_failures(done.failed, "images could not be sorted"))


def _mode(given: dict[Mode, bool]) -> Mode:
    chosen: list[Mode] = [mode for mode, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other")
    return chosen[0] if chosen else "copy"


def _undo(folder: str, dry_run: bool, quiet: bool) -> ExitStatus:
    if dry_run:
        undone = job.preview_undoing(folder)
        print_preview({"files to move back": undone.moved, "copies and links to delete": undone.deleted})
        return ExitStatus.OK
    with progress.observer(quiet) as observer:
        undone = job.undo(folder, observer)
    if not quiet:
        notices.print_line(f"{undone.moved} files moved back, {undone.deleted} copies and links deleted")
    return print_failures(undone.left, f"files are left in `{printable(folder)}`")
