"""Output files as the ledger's last run wrote them: recognised by their content, and kept if somebody edited them."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain, count

from beitcli.errors import OutputError
from beitcli.file_system import file_digest
from beitcli.ledger.database import open_database
from beitcli.outputs.destination import writing

_NO_FILE = (0, 0, "")
"""Size, time and digest of what was never written."""


def versions_of(paths: Sequence[str]) -> str:
    """The size, time and SHA-256 of each file by its place, as JSON; not of what is no file, such as a FIFO."""
    places = _places(paths)
    return json.dumps(
        {place: (*_stamp(path), file_digest(path)) for path, place in places.items() if os.path.isfile(path)}
    )


def edited(paths: Sequence[str], versions: str | None) -> list[str]:
    """Those of the files that hold anything but what was written when these were their versions; none without them."""
    if versions is None:
        return []
    known = json.loads(versions)
    return [path for path, place in _places(paths).items() if _is_edited(path, *known.get(place, _NO_FILE))]


def _places(paths: Sequence[str]) -> dict[str, str]:
    """Each path as seen from the first, which may have another name or place by now, with its ledger."""
    first = os.path.realpath(paths[0]) if paths else ""
    return {path: os.path.relpath(os.path.realpath(path), first) for path in paths}


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _is_edited(path: str, size: int, mtime_ns: int, digest: str) -> bool:
    try:
        now, time = _stamp(path)
        return now > 0 and (now, time) != (size, mtime_ns) and (now != size or file_digest(path) != digest)
    except OSError:  # there is none, or none that can be read
        return False


def keep(path: str) -> str:
    """The name `….edited`, or `….edited2` and so on, under which the file stays when it is replaced.

    Raises OutputError where it cannot have another name, and there is no room for a copy.
    """
    names = (f"{path}.edited{number}" for number in chain(("",), count(2)))
    name = next(name for name in names if not os.path.lexists(name) or _is_same(path, name))
    if _is_same(path, name):  # the run that gave it this name could not replace it
        return name
    with writing():
        try:
            os.link(path, name)
        except OSError:  # some file systems have no second name for a file
            shutil.copyfile(path, name)
            with suppress(OSError):  # nor modes or times that can be set
                shutil.copystat(path, name)
    return name


def _is_same(path: str, name: str) -> bool:
    return os.path.exists(name) and os.path.samefile(path, name)


def outputs_key(shared_by: str = "") -> str:
    """The key of a ledger's state for the versions of its output files; `shared_by` is the output in one of several."""
    return f"output_files {shared_by}".rstrip()


def outputs_of(ledger: str, shared_by: str = "") -> str | None:
    """The versions that the ledger at this path has of its output files, by `outputs_key`; None if it cannot say."""
    if not os.path.exists(ledger):
        return None
    with suppress(OutputError), open_database(ledger) as database:
        found = database.execute("SELECT value FROM state WHERE key = ?", (outputs_key(shared_by),)).fetchone()
        return str(found[0]) if found else None
    return None
