"""Labelled images of a folder or a table, for jobs that know the true labels."""

import logging

from beitcli.errors import UsageError
from beitcli.inputs.labelled import Labelled, by_folder, by_table, classes_without_images
from beitcli.inputs.sources import Walk
from beitcli.records import Skipped, printable

log = logging.getLogger(__name__)


def check_no_filters(walk: Walk) -> None:
    """Raise UsageError for filters of a folder walk where a table names the images."""
    if walk != Walk():
        raise UsageError(
            "`labels=` names each image, and nothing is walked", "leave out `ext=`, `exclude=` and the like"
        )


def read_labels(folder: str | None, table: str | None, walk: Walk, skipped: Skipped) -> list[Labelled]:
    """The images of a folder of class folders, or of a table. Raises UsageError unless exactly one of them is given."""
    if folder is not None and table is not None:
        raise UsageError("a folder and `labels=` both name the classes", "leave one of them out")
    if folder is not None:
        labelled = by_folder(folder, walk, skipped)
        empty = classes_without_images(folder, labelled, walk)
        if empty:
            log.info("%d class folders hold no image: %s", len(empty), ", ".join(map(printable, empty[:10])))
        return labelled
    if table is None:
        raise UsageError("nothing to evaluate", "name a folder that holds one for each class, or a table by `labels=`")
    check_no_filters(walk)
    return by_table(table)
