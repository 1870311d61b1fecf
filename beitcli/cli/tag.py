"""`beit tag`: labels as keywords, where photo tools look for them."""

from typing import Annotated

import typer

from beitcli.cli import notices, progress
from beitcli.cli.options import examples
from beitcli.cli.unprocessed import print_failures, reasons
from beitcli.jobs import tag as job
from beitcli.jobs.result_files import ResultFiles
from beitcli.tagging.files import SidecarStyle

EXAMPLES = examples(
    "beit tag preds.csv --threshold 0.5",
    "beit tag preds.csv --sidecar-style stem --corrections corrections.csv",
    "beit tag preds.csv --clear",
)


def tag(
    results: Annotated[
        list[str],
        typer.Argument(metavar="RESULTS", help="Files that `beit batch` wrote, in any format.", show_default=False),
    ],
    sidecar_style: Annotated[
        SidecarStyle,
        typer.Option(
            "--sidecar-style", help="name: IMG_1.jpg.xmp, as darktable and digiKam; stem: IMG_1.xmp, as Adobe."
        ),
    ] = "name",
    threshold: Annotated[
        float | None, typer.Option("--threshold", metavar="P", help="Images whose best label scores below P get none.")
    ] = None,
    corrections: Annotated[
        str | None,
        typer.Option(
            "--corrections", metavar="FILE", help="A table of paths and labels, which count before the results."
        ),
    ] = None,
    embed: Annotated[
        bool, typer.Option("--embed", help="Write into the images instead of sidecars.", show_default=False)
    ] = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove the keywords that this command wrote.", show_default=False)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be done, without doing it.", show_default=False)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notices or summary; errors only.")] = False,
) -> None:
    """Write the label of each image into an XMP sidecar, as a keyword that photo tools show.

    Keywords of others are kept. Run it again, and only what has changed is written.
    """
    notices.set_up(quiet, verbose=False)
    files = ResultFiles(tuple(results), corrections, threshold)
    request = job.TagRequest(files, sidecar_style, embed, clear, dry_run)
    with progress.observer(quiet) as observer:
        tagged = job.tag_images(request, observer)
    if not quiet:
        total = tagged.changed + tagged.kept + tagged.left.total() + len(tagged.failed)
        done = f"{tagged.changed} {'to be ' * dry_run}{'cleared' if clear else 'tagged'}, {tagged.kept} as they were"
        notices.print_line(f"{total} images: {done}, {tagged.left.total()} left, {len(tagged.failed)} failed")
        if tagged.left:
            notices.print_line(reasons(tagged.left))
    raise typer.Exit(print_failures(tagged.failed, "images could not be tagged"))
