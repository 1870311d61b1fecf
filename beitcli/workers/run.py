"""A run as its workers' pool sees it, and the engine that has the workers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from beitcli.records import Found, Identity, ResultRecord, Source
from beitcli.timings import Timings
from beitcli.workers.messages import Chosen, Place, WorkerPlan


class Engine(Protocol):
    """A way to have workers; a key stands for one that was started.

    `is_here` if they run on this machine, and so find every file.
    """

    is_here: bool

    def places(self) -> Sequence[Place]:
        """The places where workers may be now."""
        ...

    def start(self, place: Place) -> int: ...
    def send(self, key: int, message: bytes) -> None: ...
    def wait(self, seconds: float) -> list[tuple[int, bytes | str]]:
        """Messages of workers; text is the reason for which one is lost."""
        ...

    def drop(self, key: int) -> None: ...
    def install(self, key: int, read: Callable[[], Mapping[str, bytes]], folder: str) -> None:
        """Put files, which are always the same, into a folder on the worker's machine."""
        ...

    def excuse(self) -> str:
        """The reason for which no worker may be ready."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredResults:
    """Results that the run has already: of an image's digest, and the digests of at most so many."""

    result_of: Callable[[bytes], Any | None] = lambda _: None
    digests: Callable[[int], bytes] = lambda _: b""


class Countable(Protocol):
    """The inputs, which can be counted ahead."""

    def __next__(self) -> Found: ...
    def count(self, limit: int) -> int: ...
    def peek(self, limit: int) -> list[Found]: ...


@dataclass(frozen=True, slots=True)
class PooledRun(Generic[ResultRecord]):
    """The computation for the workers, and what the run itself does.

    `decide` gets the settings that the first worker chooses, and gives those that hold. `digest` is that of the
    checkpoint's files, where workers have to find it by themselves. `on_workers` gets the number of workers. Where
    `strict`, workers of other hardware end the run. With `ordered` the records come in the order of the inputs.
    `countable` inputs may be read ahead.
    """

    plan: WorkerPlan
    record: Callable[[Source, Any, Identity, bool], ResultRecord]
    timings: Timings
    decide: Callable[[Chosen], Chosen]
    known: StoredResults
    digest: str | None
    on_workers: Callable[[int], object]
    strict: bool = False
    ordered: bool = True
    countable: bool = True
