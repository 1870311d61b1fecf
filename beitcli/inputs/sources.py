"""Arguments, and what lists name, -> one lazy, ordered stream of what is to be classified."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain

from beitcli.errors import ERROR_CODES, UsageError
from beitcli.inputs.formats import SUFFIXES
from beitcli.inputs.spelling import existing_form, other_spelling
from beitcli.records import OTHER_TYPE, STDIN, Failure, Found, Identity, Skipped, Source, composed, printable
from beitcli.urls import without_secrets

SYSTEM_FOLDERS = frozenset(
    {
        "@Recently-Snapshot",
        "@Recycle",
        "@eaDir",
        "#recycle",
        "#snapshot",
        ".@__thumb",
        ".DocumentRevisions-V100",
        ".Spotlight-V100",
        ".TemporaryItems",
        ".Trashes",
        ".fseventsd",
        ".snapshots",
        "RECYCLER",
        "System Volume Information",
        "__MACOSX",
        "lost+found",
    }
)
"""Folders that operating systems and storage devices create beside images; they hold thumbnails and deleted files."""

NO_FILE = "a folder, not a file"
EVERYTHING = ("**",)
_GLOB = re.compile(r"[*?[]")
_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Walk:
    """Filters of a folder walk; `suffixes` are lower case with their dot, `exclude` are shell patterns."""

    suffixes: tuple[str, ...] = SUFFIXES
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow: bool = False
    max_depth: int | None = None

    def excludes(self, name: str, below: str) -> bool:
        """True if the entry `name` is left out; `below` is its folder's path relative to the walked one."""
        patterns = [composed(pattern).removeprefix("./").rstrip("/") for pattern in self.exclude]
        spellings = (composed(name), composed(below + name)) if patterns else ()
        return any(fnmatchcase(spelling, pattern) for pattern in patterns for spelling in spellings)


def is_of_a_system(folder: str) -> bool:
    """True for the name of a folder that an operating system or a storage device keeps for itself."""
    return folder in SYSTEM_FOLDERS or folder.startswith(".Trash-") or folder.lower() == "$recycle.bin"


def discover(arguments: Sequence[str], listed: Iterable[Source], walk: Walk, skipped: Skipped) -> Iterator[Found]:
    """Every requested image: the arguments in their order, then those listed.

    Lazy: it walks only as far as it is read, and keeps only the names of the folders on the current path. Skipped
    entries are counted in `skipped` by reason. A folder that cannot be read is one `permission` or `io_error` failure
    in its place.

    Raises UsageError, at once, for an argument that does not exist or when all arguments together hold no image.
    """
    if arguments.count("-") > 1:
        raise UsageError("`-` is given more than once, and standard input can be read only once")
    typed = chain.from_iterable([_argument(argument, walk, skipped) for argument in arguments])
    first = next(typed, None)
    if arguments and first is None:
        reasons = skipped.text()
        raise UsageError(
            f"no image in {', '.join(f'`{printable(argument)}`' for argument in arguments)}",
            f"skipped: {reasons}; `ext=`, `hidden=True`, `follow=True` and fewer `exclude=` widen the walk"
            if reasons
            else None,
        )
    return chain([] if first is None else [first], typed, listed)


def wait_at_standard_input() -> None:
    """Make reads of standard input block: an earlier program may have left its pipe non-blocking."""
    with suppress(OSError):
        os.set_blocking(0, True)


def literal(location: str) -> Source:
    """The source that a list names: a URL by its scheme, else a path, never a glob or `-`."""
    if not _URL.match(location):
        return Source(location)
    shown = without_secrets(location)
    return Source(shown, "url", address=None if shown == location else location)


def empty_folders(arguments: Sequence[str], walk: Walk) -> list[str]:
    """The folders among the arguments in which a walk finds no image; it stops at the first one found."""
    folders = [argument for argument in arguments if argument != "-" and os.path.isdir(argument)]
    return [
        folder for folder in folders if all(isinstance(item, Failure) for item in _argument(folder, walk, Skipped()))
    ]


def shard(found: Iterable[Found], number: int, count: int) -> Iterator[Found]:
    """Part `number` (from 1) of `count`, assigned by the SHA-256 of the name: the same on every machine."""
    for item in found:
        location = (item.source if isinstance(item, Failure) else item).location
        digest = hashlib.sha256(os.fsencode(location)).digest()
        if int.from_bytes(digest, "big") % count == number - 1:
            yield item


def look(found: Iterable[Found]) -> Iterator[Found]:
    """The items found, each file with its current size and time, or as a failure if it need not be opened."""
    for item in found:
        yield _with_status(item) if isinstance(item, Source) and item.kind == "path" else item


def _with_status(source: Source) -> Found:
    try:
        status = os.stat(source.location)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return Failure(source, "not_found", ERROR_CODES["not_found"])
    except OSError:  # reading it will give the reason
        return source
    if stat.S_ISDIR(status.st_mode):
        return Failure(source, "not_an_image", NO_FILE)
    return replace(source, known=Identity.of_file(status)) if stat.S_ISREG(status.st_mode) else source


def _argument(argument: str, walk: Walk, skipped: Skipped) -> Iterable[Found]:
    if argument == "-":
        return [STDIN]
    argument = existing_form(argument)
    if os.path.isdir(argument):
        return _tree(argument.rstrip("/") + "/", EVERYTHING, walk, skipped)
    if os.path.lexists(argument):
        return [Source(argument.rstrip("/"))]
    if _URL.match(argument):
        return [literal(argument)]
    if _GLOB.search(argument):
        return _glob(argument, walk, skipped)
    other = other_spelling(argument, os.path.lexists)
    hint = f"`{printable(other[0])}` does: {other[1]}" if other else None
    raise UsageError(f"`{printable(argument)}` does not exist", hint)


def _glob(pattern: str, walk: Walk, skipped: Skipped) -> Iterator[Found]:
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    prefix = existing_form("".join(f"{part}/" for part in parts[:fixed]))
    wanted = tuple(part for part in parts[fixed:] if part)
    if wanted[-1] == "**":
        wanted = (*wanted, "*")  # below, not the thing itself
    found = _tree(prefix, wanted, walk, skipped) if os.path.isdir(prefix or ".") else iter(())
    first = next(found, None)
    if first is None:
        raise UsageError(f"no image matches `{printable(pattern)}`")
    return chain([first], found)


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder of the walk: its path, and the positions in the pattern that it has reached."""

    path: bytes
    below: str
    depth: int
    reached: frozenset[int]
    ancestors: tuple[tuple[int, int], ...]


def _tree(prefix: str, pattern: tuple[str, ...], walk: Walk, skipped: Skipped) -> Iterator[Found]:
    """The images below `prefix`, which begins each path, that match `pattern`: a glob per level, `**` for any."""
    top = _Folder(os.fsencode(prefix), "", 1, _closure({0}, pattern), ())
    stack = [_Walker(walk, pattern, skipped).entries(top)]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, _Folder):
            stack.append(_Walker(walk, pattern, skipped).entries(entry))
        else:
            yield entry


def _closure(reached: set[int], pattern: tuple[str, ...]) -> frozenset[int]:
    """Positions reached, and those after each `**` among them, which also matches no folder at all."""
    for position in range(len(pattern)):
        if position in reached and pattern[position] == "**":
            reached.add(position + 1)
    return frozenset(reached)


@dataclass(frozen=True, slots=True)
class _Walker:
    """One folder's entries, in order, filtered by the walk."""

    walk: Walk
    pattern: tuple[str, ...]
    skipped: Skipped

    def entries(self, folder: _Folder) -> Iterator[Found | _Folder]:
        path = folder.path or b"."
        try:
            identity = self._identity(path)
            if identity in folder.ancestors:
                self.skipped["link to a folder above"] += 1
                return
            names, folders = self._names(path, folder)
        except OSError as error:
            source = Source(os.fsdecode(folder.path.rstrip(b"/") or path))
            code = "permission" if isinstance(error, PermissionError) else "io_error"
            yield Failure(source, code, f"cannot list the folder: {error.strerror}")
            return
        ancestors = (*folder.ancestors, identity) if identity else ()
        for name in names:
            if name in folders:
                text = os.fsdecode(name)
                reached = self._advance(folder.reached, text)
                below = f"{folder.below}{text}/"
                yield _Folder(folder.path + name + b"/", below, folder.depth + 1, reached, ancestors)
            else:
                yield Source(os.fsdecode(folder.path + name))

    def _identity(self, path: bytes) -> tuple[int, int] | None:
        """Device and inode, by which a loop is detected; None unless links are followed."""
        if not self.walk.follow:
            return None
        status = os.stat(path)
        return status.st_dev, status.st_ino

    def _names(self, path: bytes, folder: _Folder) -> tuple[list[bytes], set[bytes]]:
        """The names to take, sorted, and those of folders. Only names are kept: a folder may hold a million."""
        names, folders = [], set()
        with os.scandir(path) as entries:
            for entry in entries:
                kind = self._kind(entry)
                is_folder = kind == "folder"
                reached = self._advance(folder.reached, os.fsdecode(entry.name))
                if not (reached - {len(self.pattern)} if is_folder else len(self.pattern) in reached):
                    continue
                reason = self._reason_to_skip(entry, kind, folder)
                if reason == OTHER_TYPE:
                    self.skipped.add_other_type(os.fsdecode(entry.name))
                elif reason:
                    self.skipped[reason] += 1
                if reason:
                    continue
                names.append(entry.name)
                if is_folder:
                    folders.add(entry.name)
        names.sort()
        return names, folders

    def _kind(self, entry: "os.DirEntry[bytes]") -> str:
        """`folder`, `file` or `other`; a link to itself or to an unreadable place is `other`."""
        try:
            if entry.is_dir(follow_symlinks=self.walk.follow):
                return "folder"
            return "file" if entry.is_file(follow_symlinks=self.walk.follow) else "other"
        except OSError:
            return "other"

    def _advance(self, reached: frozenset[int], name: str) -> frozenset[int]:
        """The positions in the pattern after one more name on the path."""
        if self.pattern == EVERYTHING:  # saves set arithmetic for a million names
            return reached
        after = set()
        for position in reached:
            if position == len(self.pattern):
                continue
            if self.pattern[position] == "**":
                after.add(position)
            elif fnmatchcase(composed(name), composed(self.pattern[position])):
                after.add(position + 1)
        return _closure(after, self.pattern)

    def _reason_to_skip(self, entry: "os.DirEntry[bytes]", kind: str, folder: _Folder) -> str | None:
        name, is_folder = os.fsdecode(entry.name), kind == "folder"
        if entry.is_symlink() and not self.walk.follow:
            return "link"
        if name.startswith("._") or (is_folder and is_of_a_system(name)):
            return "system file"
        if name.startswith(".") and not self.walk.hidden and not self._names_hidden(name, folder.reached):
            return "hidden"
        if self.walk.excludes(name, folder.below):
            return "excluded"
        if is_folder:
            too_deep = self.walk.max_depth is not None and folder.depth >= self.walk.max_depth
            return "folder below --max-depth" if too_deep else None
        if kind == "other":
            return "not a regular file"
        return None if name.lower().endswith(self.walk.suffixes) else OTHER_TYPE

    def _names_hidden(self, name: str, reached: frozenset[int]) -> bool:
        """True if the pattern matches this hidden name by an explicit dot, as in a shell."""
        wanted = (self.pattern[position] for position in reached if position < len(self.pattern))
        return any(part.startswith(".") and fnmatchcase(name, part) for part in wanted)
