"""Labels -> names of folders that every file system takes and tells apart."""

import os
import re
from collections.abc import Callable, Mapping
from itertools import count

from beitcli.records import composed

UNSURE = "unsure"
FAILED = "failed"

_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))]
)
"""Names of devices on Windows, also before a suffix."""

_MOST_BYTES = 200  # of the 255 of most file systems: room for a number


def portable(text: str) -> str:
    """A name like the text that any file system takes: no path, hidden name or device, and not too long."""
    name = composed(text.encode("utf-8", "replace").decode())
    name = _FORBIDDEN.sub("_", "".join(character if character.isprintable() else "_" for character in name))
    name = _without_end(name.lstrip(" "))
    if name.startswith("."):
        name = f"_{name[1:]}"
    if name.partition(".")[0].rstrip().lower() in _RESERVED:
        name = f"_{name}"
    return _without_end(shortened(name, _MOST_BYTES)) or "_"


def _without_end(name: str) -> str:
    return name.rstrip(" .")  # Windows drops them


def shortened(name: str, most: int) -> str:
    """The name without its last characters, if it has more than so many bytes."""
    name = name[:most]
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name


class Folders:
    """The folder of each label. Labels whose names would differ in case or not at all get numbers: `Cat`, `cat_2`."""

    def __init__(self, known: Mapping[str, str], reserved: tuple[str, ...], is_usable: Callable[[str], bool]) -> None:
        self.of_labels = dict(known)
        self._is_usable = is_usable
        self._taken = {name.casefold() for name in (UNSURE, FAILED, *reserved, *known.values())}

    def of(self, label: str) -> str:
        """The folder of the label, the same in every run that knows the earlier ones."""
        if label not in self.of_labels:
            base = portable(label)
            names = (base if number == 1 else f"{base}_{number}" for number in count(1))
            name = next(name for name in names if name.casefold() not in self._taken and self._is_usable(name))
            self._taken.add(name.casefold())
            self.of_labels[label] = name
        return self.of_labels[label]
