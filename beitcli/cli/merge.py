"""`beit merge`: files of records or features into one."""

from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.options import BOM, examples
from beitcli.jobs import merge as job

EXAMPLES = examples(
    "beit merge all.csv monday.csv tuesday.csv",
    "beit merge preds.parquet preds.csv",
    "beit merge features.npz part-*.npy",
)


def merge(
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="The file to write, in the format of its suffix.", show_default=False)
    ],
    parts: Annotated[
        list[str],
        typer.Argument(metavar="PART", help="Files that `beit batch` or `beit embed` wrote.", show_default=False),
    ],
    bom: Annotated[bool, BOM] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary; errors only.", show_default=False)] = False,
) -> None:
    """Merge files of records, or of features, into one, sorted as a folder walk is; or convert a single one.

    Equal rows appear once, a result replaces an error, and of two errors the first stays. If an image has two
    different results, nothing is written. After a merge the exit status is 0, even if rows are errors.
    """
    notices.set_up(quiet, verbose=False)
    with progress.observer(quiet) as observer:
        merged = job.merge(out, parts, observer, bom)
    if not quiet and len(parts) == 1:
        notices.print_line(f"{merged.tally.images} images converted, {merged.tally.failed.total()} failed")
    elif not quiet:
        notices.print_line(
            f"{merged.tally.images} images from {len(parts)} parts: {merged.equal} equal rows left out, "
            f"{merged.overruled} errors replaced, {merged.tally.failed.total()} failed"
        )
