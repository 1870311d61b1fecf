"""Messages between a run and its workers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from beitcli.records import Fetched, Found, Identity, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from beitcli.model.checkpoint import Checkpoint
    from beitcli.pipeline import Model, Settings

PREFIX = 8
"""Bytes of a digest by which a worker knows that the run has the result of an identical image."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place for a worker: the device of its model, its number of cores, and those it is bound to, if any.

    `node` is the machine, `number` tells places apart that are alike.
    """

    name: str
    device: str
    cores: int
    pinned: tuple[int, ...] = ()
    node: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """Settings that decide the last digits of results, so that all workers share them."""

    device: str
    dtype: str
    compiled: bool
    batch_size: int


class WorkerPlan(Protocol):
    """The computation of a run, which a worker gets pickled."""

    @property
    def checkpoint(self) -> "Checkpoint": ...
    @property
    def load(self) -> "Callable[[Settings], Model]": ...
    def at(self, checkpoint: "Checkpoint", device: str, cores: int) -> "WorkerPlan":
        """The same on this device, with the checkpoint as it is found there."""
        ...

    def settings(self, count: "Callable[[int], int]") -> "Settings": ...


# from the run


@dataclass(frozen=True, slots=True)
class Setup:
    """The computation, the working folder, images that a worker has to see, and what the run has results of.

    `digest` is that of the checkpoint's files, None on the machine of the run, where they are at the same path.
    """

    plan: WorkerPlan
    place: Place
    folder: str
    images: tuple[str, ...]
    digest: str | None
    known: bytes
    level: int


@dataclass(frozen=True, slots=True)
class Counted:
    """The reply to `Count`."""

    count: int


@dataclass(frozen=True, slots=True)
class Begin:
    """The settings of all workers; chunks follow. The one that `checks` compares int8 with another dtype."""

    chosen: Chosen
    checks: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Numbered images to predict, in order; those with a digest in `computed` even if the run knows it."""

    numbers: tuple[int, ...]
    items: tuple[Found | Fetched, ...]
    computed: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Drain:
    """Finish all images, also those that wait for a batch to fill."""


# from a worker; its first message is JSON, which any version can read


@dataclass(frozen=True, slots=True)
class Count:
    """A request for the number of images, at most `limit`."""

    limit: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """The settings that this worker would choose, and its hardware."""

    chosen: Chosen
    hardware: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """A path that this worker does not see."""

    path: str


@dataclass(frozen=True, slots=True)
class Unequipped:
    """The checkpoint's files are not here; they may be put into `folder`, and `Setup` sent again."""

    folder: str


@dataclass(frozen=True, slots=True)
class More:
    """The worker has begun with a chunk, and there is room for one more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the image of that number, or its failure's code and message, or neither for an unchanged URL.

    `reused` if the result is that of an identical image; it is () where the run has it already.
    """

    number: int
    result: Any
    identity: Identity
    reused: bool = False
    failure: tuple[str, str] | None = None
    is_unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """Outcomes, and the seconds per stage since the last ones."""

    outcomes: tuple[Outcome, ...]
    seconds: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Drained:
    """All images are done, and connections to servers are closed."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A message of the log."""

    level: int
    text: str
    stage: str | None


@dataclass(frozen=True, slots=True)
class Broken:
    """An error that ends the run."""

    error: BaseException


def host_of(source: Source) -> str | None:
    """The host of a URL, None for another source."""
    if source.kind != "url":
        return None
    from urllib.parse import urlsplit

    try:
        return urlsplit(source.address or source.location).hostname or ""
    except ValueError:
        return ""
