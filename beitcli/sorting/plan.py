"""Records, corrections and the journal -> the folder of each image, and what there is to do."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from beitcli.errors import UsageError
from beitcli.inputs.sources import literal
from beitcli.inputs.spelling import existing_form
from beitcli.records import Failure, Record, Source, composed, printable
from beitcli.sorting.folders import FAILED, UNSURE, Folders, portable
from beitcli.sorting.journal import NAME, Journal, Placed, Way
from beitcli.sorting.sidecars import Sidecars, is_raw
from beitcli.sorting.transfer import is_equal

Mode = Literal["copy", "hardlink", "symlink", "move"]
Failures = Literal["folder", "leave"]

GONE = "no such file: was it moved or deleted since?"


@dataclass(frozen=True, slots=True)
class Wish:
    """An image of the results with its label, or its error's code; neither where no label is sure enough.

    `key` is its absolute path or its URL, `name` as messages show it, `as_of` the time of the results in nanoseconds.
    """

    key: str
    name: str
    source: Source
    label: str | None
    code: str | None = None
    as_of: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """An image to bring into a folder, and its sidecars: from `origin`, absolute, or below the sorted one for `refile`.

    `status` is the image's, where it is a file.
    """

    wish: Wish
    way: Way
    origin: str
    image: str
    sidecars: tuple[str, ...]
    folder: str
    status: os.stat_result | None = None


@dataclass(slots=True)
class SortingPlan:
    """The tasks, the number of images that are in place already, those left by reason, and those that cannot be done.

    `labels` are the folders of the labels, `newer` the images that have changed since their results were written.
    """

    tasks: list[Placement] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    left: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)
    newer: list[str] = field(default_factory=list)

    def by_folder(self) -> Counter[str]:
        """The number of images that go into each folder."""
        return Counter(task.folder for task in self.tasks)


class Keys:
    """Keys of images: the absolute path, through no link of a folder, or the URL; for a sorted image, that before.

    Paths that a sorted image had until its label was corrected are also its own.
    """

    def __init__(self, journal: Journal) -> None:
        self._folders: dict[str, str] = {}
        self._images = journal.images()
        self._placed = {os.path.join(journal.root, path) for path in journal.placed()}

    def of(self, source: Source) -> str:
        if source.kind != "path":
            return source.location
        folder, name = os.path.split(source.location)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or os.curdir)
        path = os.path.join(self._folders[folder], name)
        if path in self._images and (path in self._placed or not os.path.lexists(path)):
            return self._images[path]
        return path


def wishes(
    records: Iterable[Record], corrections: Mapping[str, str], threshold: float | None, keys: Keys, as_of: int
) -> Iterator[Wish]:
    """The wish for each record: its corrected label, else its best one where it scores at least the threshold."""
    for record in records:
        location = record.source.location
        source = Source(location, "stdin") if location == "-" else literal(existing_form(location))
        key, name = keys.of(source), record.source.name
        if key in corrections:
            yield Wish(key, name, source, corrections[key], as_of=as_of)
        elif isinstance(record, Failure):
            yield Wish(key, name, source, None, record.code, as_of)
        else:
            is_sure = record.scores and (threshold is None or record.scores[0].score >= threshold)
            yield Wish(key, name, source, composed(record.scores[0].label) if is_sure else None, as_of=as_of)


class Planner:
    """Decides for one image after another; the journal's images are where its steps have brought them."""

    def __init__(self, journal: Journal, mode: Mode, failures: Failures) -> None:
        self.plan = SortingPlan()
        self._journal = journal
        self._root, self._mode, self._failures = journal.root, mode, failures
        self._folders = Folders(journal.of_labels, (NAME, f"{NAME}.lock"), self._is_usable)
        self._placed = {each.step.image: each for each in journal.placed().values() if each.is_image}
        self._sidecars = Sidecars()
        self._device = _device(self._root)
        self._real = cache(lambda folder: os.path.realpath(os.path.join(self._root, folder)))

    def decide(self, found: Iterable[Wish]) -> SortingPlan:
        """The plan for all of them. Raises UsageError where no hard link leads to an image."""
        chosen: dict[str, Wish] = {}
        several = []
        for wish in found:
            first = chosen.setdefault(wish.key, wish)
            if first is not wish:
                self.plan.left["listed twice"] += 1
                if (first.label, first.code) != (wish.label, wish.code):
                    several.append(wish.name)
        if several:
            raise UsageError(
                f"{len(several)} images have two results that differ, such as `{printable(several[0])}`",
                "sort by the results of one run",
            )
        leaders = {os.path.splitext(key)[0] for key in chosen if not is_raw(key)}
        for key, wish in chosen.items():
            if is_raw(key) and os.path.splitext(key)[0] in leaders and wish.source.kind == "path":
                self.plan.left["raw of another image, with which it goes"] += 1
            else:
                self._decide(key, wish)
        self.plan.labels = self._folders.of_labels
        return self.plan

    def _decide(self, key: str, wish: Wish) -> None:
        if wish.source.kind == "stdin":
            self.plan.left["standard input"] += 1
            return
        if wish.code is not None and self._failures == "leave":
            self.plan.left["failed"] += 1
            return
        placed = self._placed.get(key)
        place = placed and os.path.join(self._root, placed.path)
        if placed and place and os.path.lexists(place) and not self._is_another(key, placed, place):
            self._refile(wish, placed)
        elif wish.source.kind == "url":
            self._download(wish)
        else:
            self._bring(wish)

    def _refile(self, wish: Wish, placed: Placed) -> None:
        origin, image = os.path.split(placed.path)
        self._claim_original(placed)
        folder = self._folder_of(wish)
        if origin == folder:
            self.plan.kept += 1
            return
        sidecars = self._sidecars.take(os.path.join(self._root, origin), image)
        self.plan.tasks.append(Placement(wish, "refile", origin, image, tuple(sidecars), folder))

    def _claim_original(self, placed: Placed) -> None:
        """Leave no other image the sidecars that this one had at its origin."""
        if placed.way not in ("move", "download"):
            self._sidecars.take(*os.path.split(placed.origin))

    def _download(self, wish: Wish) -> None:
        if wish.code is not None:
            self.plan.left["URL that failed"] += 1
        elif self._mode != "copy":
            self.plan.left["URL, which only `copy=True` takes"] += 1
        else:
            folder, name = self._folder_of(wish), name_of_url(wish.source.location)
            self.plan.tasks.append(Placement(wish, "download", wish.source.location, name, (), folder))

    def _bring(self, wish: Wish) -> None:
        folder, image = os.path.split(wish.key)
        try:
            status = os.stat(wish.key)
        except OSError as error:
            status = None
            reason = GONE if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        if wish.code is not None and not (status and stat.S_ISREG(status.st_mode)):
            self.plan.left["failed, and no file"] += 1
        elif status is None:
            self.plan.failed.append((wish.name, reason))
        elif not stat.S_ISREG(status.st_mode):
            self.plan.failed.append((wish.name, "no regular file"))
        elif self._mode == "move" and os.path.islink(wish.key):
            self.plan.left["link, which `move=True` leaves"] += 1
        else:
            self._bring_file(wish, folder, image, status)

    def _bring_file(self, wish: Wish, origin: str, image: str, status: os.stat_result) -> None:
        sidecars, folder = self._sidecars.take(origin, image), self._folder_of(wish)
        if origin == self._real(folder):
            self.plan.kept += 1
            return
        if self._mode == "hardlink" and status.st_dev != self._device:
            raise UsageError(
                f"`{printable(wish.name)}` is on another file system than `to={printable(self._root)}`, "
                "and no hard link leads there",
                "`symlink=True`, or `copy=True`",
            )
        if status.st_mtime_ns > wish.as_of:
            self.plan.newer.append(wish.name)
        self.plan.tasks.append(Placement(wish, self._mode, origin, image, tuple(sidecars), folder, status))

    def _folder_of(self, wish: Wish) -> str:
        if wish.code is not None:
            return f"{FAILED}/{portable(wish.code)}"
        return UNSURE if wish.label is None else self._folders.of(wish.label)

    def _is_another(self, key: str, placed: Placed, place: str) -> bool:
        """True if the file that is now at the origin is not the one that was brought."""
        if placed.way in ("symlink", "download") or not os.path.lexists(key):
            return False
        if placed.way == "move" or not os.path.isfile(key):
            return True
        if placed.way == "hardlink":
            return not os.path.samefile(key, place)
        now = os.stat(key)
        return (now.st_size, now.st_mtime_ns) != (placed.step.size, placed.step.mtime_ns) and not is_equal(key, place)

    def _is_usable(self, name: str) -> bool:
        path = os.path.join(self._root, name)
        return os.path.isdir(path) or not os.path.lexists(path)


def name_of_url(url: str) -> str:
    """A name of a file for the URL's image: the last part of its path."""
    from urllib.parse import unquote, urlsplit

    return portable(unquote(urlsplit(url).path.rpartition("/")[2]) or "image")


def _device(path: str) -> int:
    """The file system of a folder, or of the one that it will be in."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev
