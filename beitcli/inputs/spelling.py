"""Spellings of paths from elsewhere: the Unicode form in which a path exists, and notices of spellings that do not."""

import logging
import os
import re
import unicodedata
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from beitcli.records import printable

log = logging.getLogger(__name__)

_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(?=/)", re.IGNORECASE)
_FOREIGN = re.compile(r"""\\|^["']|^file:""", re.IGNORECASE)
_MOST_TRIED = 100
"""Missing paths of one list that are tried in another spelling."""


def existing_form(path: str) -> str:
    """The path with each name in the Unicode form, composed or decomposed, in which it exists; else as it is."""
    if path.isascii() or os.path.lexists(path):
        return path
    found = ""
    for name in os.fsencode(path).decode("utf-8", "surrogateescape").split("/"):
        forms = (unicodedata.normalize(form, name).encode("utf-8", "surrogateescape") for form in ("NFC", "NFD"))
        existing = (form for form in map(os.fsdecode, forms) if not form or os.path.lexists(found + form))
        form = next(existing, None)
        if form is None:
            return path
        found += f"{form}/"
    return found.removesuffix("/")


def other_spelling(path: str, exists: Callable[[str], bool]) -> tuple[str, str] | None:
    """A spelling in which a path exists that does not as it is, and what to change for it; None if there is none."""
    if not _FOREIGN.search(path) or exists(path):
        return None
    spelled, changes = path, []
    for change, spell in _CHANGES.items():
        before, spelled = spelled, spell(spelled)
        if spelled != before:
            changes.append(change)
            if exists(spelled):
                return spelled, " and ".join(changes)
    return None


class SpellingNotice:
    """Notice, once, of paths that do not exist as a list or a table spells them, but do in another spelling."""

    def __init__(self, name: str, exists: Callable[[str], bool] = lambda path: os.path.lexists(existing_form(path))):
        self._name = name
        self._exists = exists
        self._left = _MOST_TRIED

    def look(self, path: str) -> None:
        """Look at one more path. Those without a foreign character cost nothing."""
        if not self._left or not _FOREIGN.search(path):
            return
        self._left -= 1
        found = other_spelling(path, self._exists)
        if found:
            self._left = 0
            spelled, change = found
            log.warning(
                "%s has `%s`, which does not exist, but `%s` does: %s",
                self._name,
                *map(printable, (path, spelled)),
                change,
            )


def _unquoted(path: str) -> str:
    return path[1:-1] if len(path) > 2 and path[0] == path[-1] and path[0] in "\"'" else path


def _from_file_url(path: str) -> str:
    match = _FILE_URL.match(path)
    return os.fsdecode(unquote_to_bytes(path[match.end() :])) if match else path


_CHANGES: dict[str, Callable[[str], str]] = {
    "leave out the quotes": _unquoted,
    "write paths, no file:// URLs": _from_file_url,
    "write / for \\": lambda path: path.replace("\\", "/"),
}
