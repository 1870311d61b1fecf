"""Inputs of a request -> sources, never a file that the run itself writes."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from os.path import basename, exists, isfile, realpath

from beitcli.errors import OutputError
from beitcli.inputs.lists import open_list, read_list
from beitcli.inputs.sources import discover, empty_folders, look, shard
from beitcli.jobs.observer import Observer
from beitcli.jobs.requests import Inputs, Request
from beitcli.ledger.database import has_images_under, has_results, open_database
from beitcli.outputs.destination import check_not_overwritten
from beitcli.outputs.emptiness import has_rows
from beitcli.outputs.feature_files import SUFFIXES as FEATURES
from beitcli.outputs.formats import BY_SUFFIX
from beitcli.records import Failure, Found, Skipped, Source, printable

_LEDGER_SUFFIXES = ("", "-wal", "-journal", "-features")
_OWN_SUFFIXES = (".lock", *(f".ledger{suffix}" for suffix in _LEDGER_SUFFIXES), ".part")
"""Suffixes of the files that a run keeps beside its ledger, and beside its output."""


class Lookahead:
    """Iterator over the inputs that can count them ahead."""

    def __init__(self, found: Iterator[Found]) -> None:
        self._counted: deque[Found] = deque()
        self._rest = found

    def __iter__(self) -> "Lookahead":
        return self

    def __next__(self) -> Found:
        return self._counted.popleft() if self._counted else next(self._rest)

    def count(self, limit: int) -> int:
        """Number of remaining inputs, counted up to `limit`."""
        self._counted.extend(islice(self._rest, max(0, limit - len(self._counted))))
        return min(limit, len(self._counted))

    def peek(self, limit: int) -> list[Found]:
        """The next inputs, at most so many."""
        self.count(limit)
        return list(islice(self._counted, limit))


def find(inputs: Inputs, skipped: Skipped, silent: bool = False) -> Iterator[Found]:
    """All inputs in order; `skipped` counts what the walks leave out. If `silent`, nothing is logged."""
    listed = read_list(open_list(inputs.files_from), inputs.null, silent) if inputs.files_from is not None else ()
    return discover(inputs.inputs or (), listed, inputs.walk(), skipped)


def begin_stage(name: str, request: Request, observer: Observer) -> None:
    """Tell the observer of a stage over the inputs, and how to count them; a list in a pipe can be read only once."""
    observer.stage(name)
    listed = request.inputs.files_from
    if listed is None or (listed != "-" and isfile(listed)):
        observer.countable(partial(_counts, request))


def _counts(request: Request) -> Iterator[int]:
    """A 1 for each requested input."""
    yield from (1 for _ in shard(find(request.inputs, Skipped(), silent=True), *request.resume.part()))


def find_part(request: Request, skipped: Skipped, replaces: str) -> Iterator[Found]:
    """The requested part of the inputs, for a run that keeps no results and writes over the file `replaces`."""
    found = find(request.inputs, skipped)
    if replaces:
        found = _not_suddenly_empty(found, request)
    return shard(guard_inputs(found, replaces), *request.resume.part())


def find_again(request: Request, skipped: Skipped) -> Iterator[Found]:
    """The requested part of the inputs, for a run on a ledger.

    Raises OutputError if a folder has lost all its images, or a list all its entries: most likely a share is not
    mounted, or the command that makes the list has failed.
    """
    inputs, arguments = request.inputs, request.inputs.inputs or []
    empty = empty_folders(arguments, inputs.walk())
    if empty and exists(request.ledger) and not request.resume.fresh:
        if request.resume.prune:  # removed on purpose
            inputs = replace(inputs, inputs=[argument for argument in arguments if argument not in empty])
        else:
            _check_not_unmounted(empty, request.ledger)
    return shard(_not_suddenly_empty(find(inputs, skipped), request), *request.resume.part())


def with_identities(found: Iterable[Found], request: Request) -> Iterator[Found]:
    """Inputs, each file with the size and time that show whether it has changed."""
    return look(_refuse_own_files(guard_inputs(found, request.resume.out), request))


def guard_inputs(found: Iterable[Found], out: str) -> Iterator[Found]:
    """Pass the inputs on. Raises UsageError at an image that the output `out` ("" for none) would overwrite.

    An output with the suffix of records is no image, and may be listed among all files of a folder.
    """
    target = realpath(out)
    if not out or target.lower().endswith((*BY_SUFFIX, ".gz", ".json", *FEATURES)):
        yield from found
        return
    names = basename(out), basename(target)
    for item in found:
        if isinstance(item, Source) and item.location.endswith(names):
            check_not_overwritten([out], [item.location])
        yield item


def _not_suddenly_empty(found: Iterator[Found], request: Request) -> Iterator[Found]:
    """Pass the inputs on. Raises OutputError, at once, where a list is empty and the output has rows."""
    if request.inputs.files_from is None or request.resume.allow_empty:
        return found
    first = next(found, None)
    if first is not None:
        return chain([first], found)
    if has_rows(request.target) or (exists(request.ledger) and _knows_rows(request.ledger)):
        raise OutputError(
            f"the list is empty, and `{printable(request.resume.out)}` has rows: did the command that makes it fail?",
            "nothing has been changed; `allow_empty=True` writes a file without rows",
        )
    return found


def _knows_rows(ledger: str) -> bool:
    with open_database(ledger) as database:
        return has_results(database)


def _check_not_unmounted(folders: list[str], ledger: str) -> None:
    with open_database(ledger) as database:
        missing = next((folder for folder in folders if has_images_under(folder, database)), None)
    if missing is not None:
        raise OutputError(
            f"there is no image in `{printable(missing)}`, unlike before: is the share mounted, or did filters change?",
            "nothing has been changed; `prune=True` deletes the results of its images",
        )


def _refuse_own_files(found: Iterable[Found], request: Request) -> Iterator[Found]:
    """Inputs, the run's own files as unread failures: opening and closing one would release its lock."""
    own = {request.target + suffix for suffix in _OWN_SUFFIXES}
    if request.shares_ledger:
        ledger = request.ledger
        own |= {f"{ledger.removesuffix('.ledger')}.lock", *(ledger + suffix for suffix in _LEDGER_SUFFIXES)}
    names = (*_OWN_SUFFIXES, *(basename(path) for path in own))
    for item in found:
        if isinstance(item, Source) and item.location.endswith(names) and realpath(item.location) in own:
            yield Failure(item, "not_an_image", "one of the files that this run keeps")
        else:
            yield item
