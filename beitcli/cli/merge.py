"""`beit merge`: files of records into one, as a single run over all images would write it."""

import os
from itertools import islice
from typing import Annotated

import typer

from beitcli.cli import notices
from beitcli.cli.options import examples
from beitcli.errors import UsageError
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, writing
from beitcli.outputs.formats import by_suffix
from beitcli.outputs.lock import exclusive
from beitcli.outputs.merging import Collection, collection
from beitcli.outputs.readers import Reader
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import Layout, writer
from beitcli.records import printable

EXAMPLES = examples("beit merge all.csv monday.csv tuesday.csv", "beit merge preds.parquet part-*.jsonl.gz")

_ROWS_AT_ONCE = 1000


def merge(
    out: Annotated[
        str, typer.Argument(metavar="OUT", help="The file to write, in the format of its suffix.", show_default=False)
    ],
    parts: Annotated[
        list[str],
        typer.Argument(metavar="PART", help="Files written by `beit batch --out`, in any formats.", show_default=False),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No summary; errors only.", show_default=False)] = False,
) -> None:
    """Merge files of records into one, sorted as a folder walk is.

    Equal rows appear once, a prediction replaces an error, and of two errors the first stays. If an image has two
    different predictions, nothing is written. After a merge the exit status is 0, even if rows are errors.
    """
    notices.set_up(quiet, verbose=False)
    file_format = by_suffix(out)
    readers = [_reader(path) for path in parts]
    if is_stream(out):
        raise UsageError(f"`{printable(out)}` is a FIFO or device", "name a file")
    check_writable(out)
    with exclusive(out, wait=False), collection() as collected:
        for reader in readers:
            collected.add(reader.records(), reader.path)
        columns = max(reader.columns for reader in readers)
        tally = _write(out, Layout(file_format.name, columns, file_format.gzip), collected)
    if not quiet:
        notices.print_line(
            f"{tally.images} images from {len(parts)} parts: {collected.equal} equal rows left out, "
            f"{collected.overruled} errors replaced, {tally.failed.total()} failed"
        )


def _reader(path: str) -> Reader:
    if not os.path.exists(path):
        raise UsageError(f"`{printable(path)}` does not exist")
    if not os.path.isfile(path):
        raise UsageError(f"`{printable(path)}` is no file", "name files written by `beit batch --out`")
    return Reader(path, *by_suffix(path))


def _write(out: str, layout: Layout, collected: Collection) -> Tally:
    tally, records = Tally(), collected.in_order()
    with replaced_file(out, keeps_part=False) as stream, writer(stream, layout) as rows:
        while some := list(islice(records, _ROWS_AT_ONCE)):
            with writing():
                rows.write(some)
            tally.add(some)
    return tally
