"""The journal of a sorted folder, `beit-sort.jsonl`: every step is in it before it is made."""

import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from beitcli.errors import BeitError, OutputError, hint_for
from beitcli.file_system import sync, sync_folder
from beitcli.records import printable

NAME = "beit-sort.jsonl"
_VERSION = 1

Way = Literal["copy", "hardlink", "symlink", "move", "download", "refile"]


@dataclass(frozen=True, slots=True)
class Step:
    """An image and its sidecars on their way into a folder; `names` are those before and after, the image's first.

    `image` is the path or URL by which it is known, `origin` the folder it comes from: below the sorted one for
    `refile`, a URL for `download`, else absolute. `size` and `mtime_ns` are the image's, `digest` is a download's.
    """

    number: int
    way: Way
    image: str
    origin: str
    folder: str
    names: tuple[tuple[str, str], ...]
    size: int | None = None
    mtime_ns: int | None = None
    digest: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The object of its line."""
        values = {name: getattr(self, name) for name in ("way", "image", "origin", "folder", "names")}
        known = {name: getattr(self, name) for name in ("size", "mtime_ns", "digest")}
        return {"step": self.number, **values, **{name: value for name, value in known.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class Placed:
    """A file that the steps have brought into the folder: where it is, below it, and where it comes from.

    `origin` is absolute, or a URL; `step` is the one that brought it from there.
    """

    path: str
    origin: str
    step: Step
    is_image: bool

    @property
    def way(self) -> Way:
        """The way it came; a file that others put into the folder has only moved."""
        return "move" if self.step.way == "refile" else self.step.way


@dataclass(slots=True)
class Journal:
    """The steps of all runs into the folder `root`, those that may be unfinished, and the folders of the labels.

    `made` are the folders that were made for them, in order; `token` is part of the names of unfinished files.
    """

    root: str
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    steps: dict[int, Step] = field(default_factory=dict)
    unfinished: set[int] = field(default_factory=set)
    of_labels: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    made: list[str] = field(default_factory=list)
    has_undone: bool = False
    made_root: bool = False
    _next: int = 1
    _size: int = 0
    _descriptor: int | None = None

    @property
    def path(self) -> str:
        return os.path.join(self.root, NAME)

    @property
    def exists(self) -> bool:
        return self._size > 0

    @classmethod
    def read(cls, root: str) -> "Journal":
        """The journal of a folder, empty where there is none; a line that was cut by a kill is none.

        Raises BeitError for lines that are not a journal's, and where it cannot be read.
        """
        journal = cls(root)
        try:
            with open(journal.path, "rb") as stream:
                data = stream.read()
        except FileNotFoundError:
            return journal
        except OSError as error:
            raise BeitError(f"cannot read `{printable(journal.path)}`: {error.strerror}") from error
        *lines, cut = data.split(b"\n")
        journal._size = len(data) - len(cut)
        for number, line in enumerate(lines, 1):
            try:
                journal._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise BeitError(
                    f"`{printable(journal.path)}`, line {number}: no line of a journal", "was it edited?"
                ) from error
        return journal

    def begin(self, made_root: bool) -> None:
        """Open it for steps; a new one begins. Raises OutputError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise self._error(error) from error
        if not self.exists:
            self.made_root = made_root
            self.write([{"version": _VERSION, "token": self.token, "made": made_root}], is_sure=True)
            with suppress(OSError):
                sync_folder(self.root)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def number(self) -> int:
        """The number of a new step."""
        self._next += 1
        return self._next - 1

    def part(self, folder: str) -> str:
        """The name of a file in the folder that is not yet whole."""
        return os.path.join(folder, f".beit-sort-{self.token}.part")

    def announce(self, folders: Iterable[tuple[str, str | None, bool]], steps: Iterable[Step]) -> None:
        """Note folders (name, label, is it new?) and steps, on the disk, before any is made. Raises OutputError."""
        lines = [{"folder": name, "label": label, "made": is_new} for name, label, is_new in folders]
        self.write([*lines, *(step.as_dict() for step in steps)], is_sure=True)

    def finish(self, step: Step) -> None:
        self.write([{"done": step.number}])

    def drop(self, step: Step) -> None:
        """Note that the step is not made."""
        self.write([{"dropped": step.number}])

    def begin_undoing(self) -> None:
        """Note that files go back; a full disk, which that may be for, does not prevent it."""
        with suppress(OutputError):
            self.write([{"undoing": True}], is_sure=True)

    def end_undoing(self) -> None:
        """Note that files come again."""
        self.write([{"undoing": False}])

    def write(self, lines: list[dict[str, Any]], is_sure: bool = False) -> None:
        """Append the lines, all or none; if they are to be sure, they are on the disk then. Raises OutputError."""
        if self._descriptor is None:
            raise ValueError("the journal is not open")
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        try:
            written = os.pwrite(self._descriptor, data, self._size)
            if written < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.ftruncate(self._descriptor, self._size + written)  # without what a kill has cut
            if is_sure:
                sync(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise self._error(error) from error
        self._size += written
        for line in lines:
            self._take(line)

    def placed(self) -> dict[str, Placed]:
        """The files that the steps have brought, by their paths below the folder, also those not there any more."""
        found: dict[str, Placed] = {}
        for step in self.steps.values():
            for place, (old, new) in enumerate(step.names):
                path, came = f"{step.folder}/{new}", os.path.join(step.origin, old)
                origin = step.image if step.way == "download" else os.path.join(self.root, came)
                before = found.pop(came, None) if step.way == "refile" else None
                now = replace(before, path=path) if before else Placed(path, origin, step, is_image=not place)
                found.pop(path, None)  # to be the last one
                found[path] = now
        return found

    def images(self) -> dict[str, str]:
        """The image of every absolute path below the folder to which one was brought, also if it has left it."""
        return {os.path.join(self.root, step.folder, step.names[0][1]): step.image for step in self.steps.values()}

    def clear_parts(self) -> None:
        """Delete the files that a kill has left unfinished."""
        folders = {os.path.join(self.root, name) for name in self.folders}
        if self.has_undone:
            folders.update(os.path.dirname(each.origin) for each in self.placed().values() if each.way == "move")
        for folder in folders:
            with suppress(OSError):
                os.unlink(self.part(folder))

    def files(self, step: Step) -> Iterator[tuple[str, str]]:
        """The absolute paths of each file of the step, before and after."""
        origin = os.path.join(self.root, step.origin) if step.way == "refile" else step.origin
        for old, new in step.names:
            yield os.path.join(origin, old), os.path.join(self.root, step.folder, new)

    def delete(self) -> None:
        """Delete it. Raises OutputError."""
        self.close()
        try:
            os.unlink(self.path)
        except OSError as error:
            raise self._error(error) from error
        self._size = 0

    def _take(self, line: dict[str, Any]) -> None:
        match line:
            case {"version": version, "token": str(token), "made": bool(made)}:
                if version != _VERSION:
                    raise ValueError(f"version {version}")
                self.token, self.made_root = token, made
            case {"folder": str(name), "label": label, "made": made}:
                self.folders.add(name)
                if label is not None:
                    self.of_labels[label] = name
                if made:
                    self.made.append(name)
            case {"step": int(number), "names": names, "folder": folder, **values}:
                names = tuple((old, new) for old, new in names)
                if not _is_below([folder, *(new for _, new in names)]):
                    raise ValueError("a place outside the folder")
                self.steps[number] = Step(number, names=names, folder=folder, **values)
                self.unfinished.add(number)
                self._next = max(self._next, number + 1)
            case {"done": number}:
                self.unfinished.discard(number)
            case {"dropped": number}:
                self.unfinished.discard(number)
                self.steps.pop(number, None)
            case {"undoing": bool(undoing)}:
                self.has_undone = undoing
            case _:
                raise ValueError("unknown")

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write `{printable(self.path)}`: {error.strerror}", hint_for(error))


def _is_below(paths: Iterable[str]) -> bool:
    """True if none of the paths leads out of the folder that it begins in: a journal may come from anywhere."""
    return not any(part in ("", os.pardir) for path in paths for part in path.split("/"))
