"""Labelled images, from a folder per class or from a table."""

import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from beitcli.errors import UsageError
from beitcli.inputs.sources import Walk, discover, is_of_a_system, literal
from beitcli.inputs.spelling import SpellingNotice, existing_form
from beitcli.inputs.text import read_text
from beitcli.records import Failure, Found, Skipped, Source, composed, printable

log = logging.getLogger(__name__)

PATH_COLUMNS = ("path", "source", "file", "filename", "image")
LABEL_COLUMNS = ("label", "class", "target")

_TRAINING = frozenset({"train", "training"})
_HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")  # the best to validate with first
"""Names of the folders that a data set is commonly split into."""

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas"}
_SEPARATORS = "a table has commas, or tabs where its name ends in .tsv"


@dataclass(frozen=True, slots=True)
class Labelled:
    """An item found, and its label: as the folder spells it, or the table's in Unicode's composed form."""

    found: Found
    label: str


def by_folder(folder: str, walk: Walk, skipped: Skipped) -> list[Labelled]:
    """Labelled images below a folder that holds a folder for each class; nested folders belong to their class.

    Raises UsageError for a folder that cannot be listed or holds no image, and for an image that is in no class.
    """
    if not os.path.isdir(folder):
        reason = "is no folder" if os.path.lexists(folder) else "does not exist"
        raise UsageError(f"`{printable(folder)}` {reason}", "name one that holds a folder of images for each class")
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise UsageError(f"cannot list the folder `{printable(folder)}`: {error.strerror}") from error
    start = len(folder.rstrip("/")) + 1
    labelled = []
    for found in discover([folder], (), walk, skipped):
        location = (found.source if isinstance(found, Failure) else found).location
        label, _, below = location[start:].partition("/")
        if not below and not isinstance(found, Failure):
            raise UsageError(
                f"`{printable(location)}` is in no class folder", "move it into one, or name the classes by `labels=`"
            )
        labelled.append(Labelled(found, Source(label).name))
    _check_not_split(folder, labelled)
    return labelled


def _check_not_split(folder: str, labelled: Sequence[Labelled]) -> None:
    """Raise UsageError for a folder of training, validation or test images, each in folders of the same classes."""
    below: dict[str, set[str]] = {}
    start = len(folder.rstrip("/")) + 1
    for each in labelled:
        location = (each.found.source if isinstance(each.found, Failure) else each.found).location
        part, *inside = location[start:].split("/")
        if len(inside) > 1:
            below.setdefault(part, set()).add(inside[0])
    names = {part.lower(): part for part in below}
    training = next((names[name] for name in names if name in _TRAINING), None)
    held_out = next((names[name] for name in _HELD_OUT if name in names), None)
    if training and held_out and below[training] & below[held_out]:
        first, second = (printable(os.path.join(folder, part)) for part in (training, held_out))
        raise UsageError(
            f"`{first}` and `{second}` hold the same classes: they are parts of a data set, no classes themselves",
            f"train on `{first}` with `val={second}`, or evaluate one of them",
        )


def classes_without_images(folder: str, labelled: Iterable[Labelled], walk: Walk) -> list[str]:
    """The class folders without an image in `labelled`, except hidden, system and excluded folders."""
    known = {each.label for each in labelled}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not is_of_a_system(entry.name))
    wanted = (name for name in names if not name.startswith(".") and not walk.excludes(name, ""))
    return [name for name in wanted if Source(name).name not in known]


def by_table(path: str) -> list[Labelled]:
    """Labelled images of a CSV, or TSV by its suffix: a path or URL and a label a row.

    A header names them (`path`, `source`, `file`, … and `label`, `class` or `target`, among other columns); without one
    they are the first two columns. A path that does not exist as written is looked up beside the table, and in another
    Unicode form; labels are composed. A path that exists in a foreign spelling is worth a warning. The rows of failures
    in a file of records are left out.

    Raises UsageError where the table cannot be read or has other separators, a row has no label, or the first one is a
    header of other names.
    """
    try:
        text = io.StringIO(read_text(path), newline="")
        rows = csv.reader(text, "excel-tab" if path.lower().endswith(".tsv") else "excel")
        labelled = list(_labelled_rows(rows, path))
    except (OSError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no table ({error})"
        raise UsageError(f"cannot read the labels in `{printable(path)}`: {reason}", _SEPARATORS) from error
    if not labelled:
        raise UsageError(f"`{printable(path)}` has no row", "a path and a label a row")
    _report_contradictions(labelled)
    return labelled


def _report_contradictions(labelled: Iterable[Labelled]) -> None:
    """Warn of images with several labels: most likely a mistake, but an image may be of two classes."""
    first: dict[Found, str] = {}
    several = {each.found for each in labelled if first.setdefault(each.found, each.label) != each.label}
    if several:
        name = min(found.name for found in several if isinstance(found, Source))
        log.warning("%d images have more than one label, such as %s", len(several), name)


def _labelled_rows(rows: Iterator[list[str]], path: str) -> Iterator[Labelled]:
    first = next(rows, [])
    _check_separator(first, path)
    names = [name.strip().lower() for name in first]
    place, label = _column(names, PATH_COLUMNS), _column(names, LABEL_COLUMNS)
    if (place is None) != (label is None):
        lacking, known = ("path", PATH_COLUMNS) if place is None else ("label", LABEL_COLUMNS)
        raise UsageError(f"`{printable(path)}` has no column with the {lacking}", f"name it {', '.join(known)}")
    start = 2
    if place is None or label is None:
        place, label, rows, start = 0, 1, chain([first], rows), 1
        if first and _is_column_name(first[0], path):
            raise UsageError(
                f"`{printable(path)}`, row 1: `{printable(first[0])}` is no image",
                f"a header has the columns {', '.join(PATH_COLUMNS)} and {', '.join(LABEL_COLUMNS)}",
            )
    if {"status", "score"} <= set(names):
        log.warning("`%s` holds predictions of a model, not labels that somebody has checked", printable(path))
    notice = SpellingNotice(f"`{printable(path)}`", lambda location: os.path.lexists(found_beside(location, path)))
    status, failed = _status_column(names), 0
    for number, row in enumerate(rows, start):
        if not any(row):
            continue
        if status is not None and row[status : status + 1] == ["error"]:
            failed += 1
            continue
        if len(row) <= max(place, label) or not row[place] or not row[label].strip():
            raise UsageError(
                f"`{printable(path)}`, row {number}: no path and label",
                "one of them is empty" if len(row) > max(place, label) else f"it has {len(row)} columns; {_SEPARATORS}",
            )
        location = os.fsdecode(row[place].encode())  # the table is UTF-8, and names of files are bytes
        notice.look(location)
        yield Labelled(literal(found_beside(location, path)), composed(row[label].strip()))
    if failed:
        log.info("%d rows of `%s` are images that failed, and are left out", failed, path)


def _check_separator(first: list[str], path: str) -> None:
    """Raise UsageError for a table whose first row has other separators than its suffix says."""
    cell = first[0] if first else ""
    there = os.path.lexists(found_beside(cell, path))
    for separator, name in _OTHER_SEPARATORS.items():
        beside = found_beside(cell.partition(separator)[0], path)
        if separator in cell and not there and (len(first) == 1 or os.path.lexists(beside)):
            raise UsageError(f"the columns of `{printable(path)}` are separated by {name}", _SEPARATORS)


def _status_column(names: list[str]) -> int | None:
    """The column that says whether an image failed, in a file of records."""
    return names.index("status") if {"status", "error_code"} <= set(names) else None


def _column(names: list[str], known: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in known if name in names), None)


def _is_column_name(cell: str, table: str) -> bool:
    """True if the cell looks like the name of a column, not of an image."""
    looks_like_a_path = "/" in cell or os.path.splitext(cell)[1]
    return bool(cell) and not looks_like_a_path and not os.path.lexists(found_beside(cell, table))


def found_beside(location: str, table: str) -> str:
    """The path as a table has it, or beside the table, in the spelling in which it exists; else as the table has it.

    A name that is not UTF-8 may be written as records write it, `\\xNN` for a byte.
    """
    spellings = [location, Source.named(Source(location).name).location] if "\\x" in location else [location]
    paths = (path for each in spellings for path in (each, os.path.join(os.path.dirname(table), each)))
    return next(filter(os.path.lexists, map(existing_form, paths)), location)
