"""Sidecars: files that go where their image goes, as they have its name and a suffix of data, or are its raw."""

import os
from collections import defaultdict

from beitcli.inputs.formats import FORMATS

_DATA = (".xmp", ".json")
_RAW = FORMATS["RAW"]


def is_raw(name: str) -> bool:
    """True for the name of a camera's raw file."""
    return name.lower().endswith(_RAW)


def is_sidecar(name: str) -> bool:
    """True for the name of a file that is some image's, if there is one of its name."""
    return name.lower().endswith((*_DATA, *_RAW))


class Sidecars:
    """Sidecars by image: `IMG_1.xmp`, `IMG_1.jpg.xmp`, `IMG_1.json` and `IMG_1.CR2` are those of `IMG_1.jpg`.

    Each is given to the first image that asks. A folder is listed once.
    """

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, list[str]]] = {}

    def take(self, folder: str, image: str) -> list[str]:
        """The names of the image's sidecars that are there and not yet given, in order."""
        if folder not in self._listed:
            self._listed[folder] = _by_stem(folder)
        there = self._listed[folder]
        stem = os.path.splitext(image)[0]
        found = [*there.pop(stem, ()), *(there.pop(image, ()) if image != stem else ())]
        return sorted(name for name in found if name != image)


def _by_stem(folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_relative = entry.is_symlink() and not os.path.isabs(os.readlink(entry.path))
                if is_sidecar(entry.name) and entry.is_file() and not is_relative:  # which elsewhere would lead astray
                    found[os.path.splitext(entry.name)[0]].append(entry.name)
    except OSError:  # the image says it better
        return {}
    return dict(found)
