"""Thumbnails of an earlier page: in the page itself, or in the folder beside it."""

import base64
import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b

from beitcli.records import Source

SUFFIX = ".thumbnail"
"""Suffix of thumbnails in a folder: none of an image, or the next run over that folder would classify them."""

_VERSION = "1"  # of what a thumbnail looks like
_NAME = re.compile(r"([0-9a-f]{16})-[0-9a-f]{16}")
_EMBEDDED = re.compile(rb'<script type="application/json" id="thumbnails">([^<]*)</script>')


def key_of(source: Source) -> str | None:
    """The first half of a thumbnail's name: it changes with the file. None for a file that is not there."""
    facts = source.location
    if source.kind == "path":
        try:
            status = os.stat(source.location)
        except (OSError, ValueError):
            return None
        facts = f"{os.path.abspath(source.location)}\0{status.st_size}\0{status.st_mtime_ns}"
    return blake2b(f"{_VERSION}\0{facts}".encode(errors="surrogateescape"), digest_size=8).hexdigest()


class ThumbnailFiles:
    """The thumbnails of a page: in the page itself, or in the folder `report_files` beside `report.html`.

    At first they are those of an earlier page, wherever it had them. Raises OSError where they cannot be written.
    """

    def __init__(self, page: str, is_embedded: bool) -> None:
        self._is_embedded = is_embedded
        self._folder = _Folder(f"{os.path.splitext(os.path.realpath(page))[0]}_files")
        self._in_memory = _embedded(page)
        in_folder = self._folder.names()
        self._known = {name.partition("-")[0]: name for name in (*self._in_memory, *in_folder)}
        if not is_embedded:
            for name in self._in_memory.keys() - set(in_folder):
                self._folder.write(name, self._in_memory[name])

    @property
    def folder(self) -> str | None:
        """The name of their folder, None if they are in the page."""
        return None if self._is_embedded else os.path.basename(self._folder.path)

    def known(self, key: str) -> str | None:
        """The name of the thumbnail that is there for an image, None if it has to be made."""
        return self._known.get(key)

    def add(self, key: str, digest: bytes, data: bytes) -> str:
        """Add the thumbnail of an image, and return its name. Those of identical images end alike."""
        name = f"{key}-{digest[:8].hex()}"
        if self._is_embedded:
            self._in_memory[name] = data
        else:
            self._folder.write(name, data)
        return name

    def embedded(self, names: Iterable[str]) -> dict[str, bytes]:
        """The thumbnails that the page has to hold itself, by name."""
        if not self._is_embedded:
            return {}
        return {name: self._in_memory.get(name) or self._folder.read(name) for name in names}

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete the files that the page does not need."""
        self._folder.keep_only(() if self._is_embedded else names)


def _embedded(page: str) -> dict[str, bytes]:
    """The thumbnails in an earlier page, by their names; none where there is no such page."""
    try:
        with open(page, "rb") as stream:
            found = _EMBEDDED.search(stream.read())
        values = json.loads(found[1]) if found else {}
        thumbnails = {name: base64.b64decode(text) for name, text in values.items() if _NAME.fullmatch(name)}
    except (OSError, ValueError, TypeError, AttributeError):  # somebody has edited it
        return {}
    return {name: data for name, data in thumbnails.items() if data.startswith(b"RIFF")}


class _Folder:
    """Thumbnails as files in 256 folders."""

    def __init__(self, path: str) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The names of its thumbnails that are complete."""
        return [
            entry.name.removesuffix(SUFFIX)
            for entry in self._entries()
            if _is_thumbnail(entry.name) and entry.stat().st_size  # empty after a crash of the machine
        ]

    def read(self, name: str) -> bytes:
        """The thumbnail of that name. Raises OSError."""
        with open(self._file(name), "rb") as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Add a thumbnail, complete or not at all. Raises OSError."""
        path = self._file(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.part", "wb") as stream:
            stream.write(data)
        os.replace(f"{path}.part", path)

    def keep_only(self, names: Iterable[str]) -> None:
        """Delete all other thumbnails, and the folder if it is then empty; files of others stay."""
        kept = {f"{name}{SUFFIX}" for name in names}
        for entry in self._entries():
            if _is_thumbnail(entry.name.removesuffix(".part")) and entry.name not in kept:
                with suppress(OSError):
                    os.unlink(entry.path)
        for folder in [*(os.path.join(self.path, f"{number:02x}") for number in range(256)), self.path]:
            with suppress(OSError):
                os.rmdir(folder)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name[:2], f"{name}{SUFFIX}")

    def _entries(self) -> Iterable["os.DirEntry[str]"]:
        for number in range(256):
            with suppress(OSError), os.scandir(os.path.join(self.path, f"{number:02x}")) as entries:
                yield from entries


def _is_thumbnail(name: str) -> bool:
    return name.endswith(SUFFIX) and _NAME.fullmatch(name.removesuffix(SUFFIX)) is not None
