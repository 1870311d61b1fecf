"""Requests: the options of a run as plain records, with their defaults and checks."""

import math
import re
from dataclasses import dataclass
from os.path import dirname, join, realpath, split
from typing import TYPE_CHECKING, Annotated, Literal

from beitcli.errors import UsageError
from beitcli.inputs.formats import SUFFIXES
from beitcli.inputs.sources import Walk
from beitcli.jobs.values import Range, check_values
from beitcli.ledger.ledger import Recompute
from beitcli.outputs.destination import check_not_overwritten, check_writable, is_stream
from beitcli.records import printable

if TYPE_CHECKING:
    from beitcli.inputs.decode import Decoding
    from beitcli.inputs.fetch import FetchLimits

Dtype = Literal["auto", "fp32", "bf16", "fp16", "int8"]

DEFAULT_MODEL = "large-384"

_Seconds = Annotated[float, Range(0.001, 86_400.0)]  # a day; system timers take no infinity


@dataclass(frozen=True, slots=True)
class Inputs:
    """Images to read: files, folders, globs and URLs, then those of a list; and what a folder walk takes."""

    inputs: list[str] | None = None
    files_from: str | None = None
    null: bool = False
    ext: list[str] | None = None
    exclude: list[str] | None = None
    hidden: bool = False
    follow: bool = False
    max_depth: Annotated[int | None, Range(1)] = None

    def check(self) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other."""
        check_values(self)
        if not self.inputs and self.files_from is None:
            raise UsageError("nothing to classify", "name files, folders, globs or URLs, or a list by `files_from=`")
        if self.null and self.files_from is None:
            raise UsageError("`null=True` is for a list", "add `files_from=FILE`, or `files_from=-` for standard input")
        if self.files_from == "-" and self.inputs and "-" in self.inputs:
            raise UsageError("`-` and `files_from=-` both want standard input")

    @property
    def files(self) -> list[str]:
        """Arguments that may name a file to read: the inputs and the list."""
        return [*(self.inputs or ()), *([self.files_from] if self.files_from else ())]

    def walk(self) -> Walk:
        """The filters of a folder walk. Raises UsageError for suffixes that are none."""
        extensions = [part.strip("*. ").lower() for text in self.ext or [] for part in text.split(",")]
        suffixes = tuple(f".{extension}" for extension in extensions if extension)
        if self.ext and not suffixes:
            raise UsageError(f"`ext={' '.join(self.ext)}`: no suffix", "for example `ext=jpg,png`")
        suffixes = suffixes or SUFFIXES
        return Walk(suffixes, tuple(self.exclude or ()), self.hidden, self.follow, self.max_depth)


@dataclass(frozen=True, slots=True)
class Limits:
    """Cost of one image at most: pixels, seconds, and bytes of a URL."""

    fast_decode: bool = False
    max_pixels: Annotated[int, Range(1)] = 200_000_000
    decode_timeout: _Seconds = 60.0
    url_timeout: _Seconds = 60.0
    url_max_bytes: Annotated[int, Range(1)] = 64_000_000

    def check(self) -> None:
        """Raise UsageError for values that are not allowed."""
        check_values(self)

    def decoding(self, digest: bool) -> "Decoding":
        """Limits for decoding; the target size is added later, by the preprocessing."""
        from beitcli.inputs.decode import Decoding

        return Decoding(self.max_pixels, self.decode_timeout, digest=digest)

    def fetching(self) -> "FetchLimits":
        """Limits for fetching."""
        from beitcli.inputs.fetch import FetchLimits

        return FetchLimits(self.url_timeout, self.url_max_bytes)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The checkpoint, and how it sees an image."""

    model: str = DEFAULT_MODEL
    revision: str | None = None
    preprocess: Literal["checkpoint", "paper"] = "checkpoint"
    image_size: Annotated[int | None, Range(1)] = None

    def check(self) -> None:
        """Raise UsageError for values that are not allowed."""
        check_values(self)


@dataclass(frozen=True, slots=True)
class Compute:
    """Devices, precision and speed; None is chosen by the run.

    With several `devices`, which stand in for `device`, each has a worker, and so have the nodes of the Ray cluster at
    `address`; `strict` allows none whose hardware gives other digits. With `check_int8` a run in int8
    computes its first images in another dtype too.
    """

    batch_size: Annotated[int | None, Range(1, 4096)] = None
    workers: Annotated[int | None, Range(0, 256)] = None
    device: str = "auto"
    dtype: Dtype = "auto"
    fp16: bool = False
    compile: bool | None = None
    devices: str | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    strict: bool = False
    check_int8: bool = True

    def check(self) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other."""
        check_values(self)
        self._check_workers()
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise UsageError(f"`device={self.device}`: no such device", "one of auto, cpu, cuda, cuda:N, mps")
        if self.fp16 and self.dtype not in ("auto", "fp16"):
            raise UsageError(f"`fp16=True` and `dtype={self.dtype}` contradict each other")

    def check_for_training(self) -> None:
        """Raise UsageError for a dtype that no network is trained in."""
        if self.dtype == "int8":
            raise UsageError("`dtype=int8` is for results: networks are not trained in it", "leave it out")

    def _check_workers(self) -> None:
        one = r"(cpu|cuda(:\d+)?|mps)"
        if self.devices is not None and not re.fullmatch(rf"all|{one}(,{one})*", self.devices):
            raise UsageError(f"`devices={self.devices}`: no such devices", "`all`, or for example cuda:0,cuda:2")
        if self.devices is not None and self.engine == "ray":
            raise UsageError(f"`devices={self.devices}` and `engine=ray`", "Ray's nodes have their own devices")
        if self.address is not None and self.engine != "ray":
            raise UsageError(f"`address={self.address}` is for Ray", "add `engine=ray`")
        if self.engine == "ray" and self.device == "mps":
            raise UsageError("`device=mps`: Ray knows no such device", "one of auto, cpu, cuda")
        if self.strict and self.devices is None and self.engine == "local":
            raise UsageError("`strict=True` is for several workers", "add `devices=all` or `engine=ray`")

    @property
    def has_workers(self) -> bool:
        """True if other processes may compute."""
        return self.devices is not None or self.engine != "local"

    @property
    def precision(self) -> str:
        """The dtype requested."""
        return "fp16" if self.fp16 else self.dtype


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of a prediction to give or write."""

    top_k: Annotated[int, Range(0)] = 5
    threshold: float | None = None
    label: list[str] | None = None

    def check(self) -> None:
        """Raise UsageError for values that are not allowed."""
        check_values(self)
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UsageError(f"`threshold={self.threshold}`: no score", "a number that a score may be, such as 0.5")


@dataclass(frozen=True, slots=True)
class Resume:
    """Output file of a run, what of earlier runs it reuses, and the file of its summary for machines."""

    out: str = "-"
    shard: str | None = None
    dry_run: bool = False
    retry_errors: bool = False
    refresh_urls: bool = False
    no_dedupe: bool = False
    prune: bool = False
    fresh: bool = False
    ledger: str | None = None
    no_ledger: bool = False
    allow_empty: bool = False
    wait: bool = False
    summary: str | None = None

    def check(self) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other; OutputError for a file."""
        self.part()
        kept = ("dry_run", "retry_errors", "refresh_urls", "no_dedupe", "prune", "fresh")
        requested = next((name for name in kept if getattr(self, name)), None)
        if requested and (self.no_ledger or self.streams):
            hint = "drop `no_ledger=True`" if self.no_ledger else "add `out=FILE`"
            raise UsageError(f"`{requested}=True` needs a ledger", hint)
        if self.ledger is not None and (self.no_ledger or self.streams):
            hint = "choose one of them" if self.no_ledger else "add `out=FILE`"
            raise UsageError(f"`ledger={printable(self.ledger)}`: this run keeps no results", hint)
        if self.allow_empty and self.streams:
            raise UsageError("`allow_empty=True` is for a file", "add `out=FILE`")
        if self.summary is not None:
            self._check_summary(self.summary)

    def _check_summary(self, path: str) -> None:
        """Raise UsageError for a file that the summary cannot replace, OutputError where it cannot be written."""
        if path == "-" or is_stream(path) or realpath(path) == realpath(self.out):
            raise UsageError(f"`summary={printable(path)}`: no file of its own", "for example `summary=run.json`")
        check_writable(path)

    @property
    def begins_anew(self) -> bool:
        """True if a ledger that is not there yet begins empty, without the results of one beside it."""
        return self.fresh or self.no_ledger or self.ledger is not None

    @property
    def streams(self) -> bool:
        """True if the records go to standard output or a stream, which keeps none."""
        return self.out == "-" or is_stream(self.out)

    def recompute(self) -> Recompute:
        """Valid results to compute again."""
        return Recompute(errors=self.retry_errors, urls=self.refresh_urls)

    def part(self) -> tuple[int, int]:
        """The part of the inputs to process, from 1, and the number of parts. Raises UsageError for no such part."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", "1/1" if self.shard is None else self.shard)
        number, count = (int(text) for text in match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(f"`shard={self.shard}`: no such part", "for example `shard=1/4`, the first of four")
        return number, count


@dataclass(frozen=True, slots=True)
class Request:
    """All options of a run over images; `target` is the output with all links resolved.

    `tolerated` is the share of failed images (0…1) up to which the run counts as successful; None tolerates all.
    """

    inputs: Inputs
    limits: Limits = Limits()
    model: ModelChoice = ModelChoice()
    compute: Compute = Compute()
    labels: Labels = Labels()
    resume: Resume = Resume()
    target: str = ""
    tolerated: float | None = 0.0

    def check(self) -> None:
        """Raise UsageError for values that are not allowed, or contradict each other; OutputError for a file."""
        for part in (self.inputs, self.limits, self.model, self.compute, self.labels, self.resume):
            part.check()
        if self.ledger == self.target != "":
            raise UsageError(f"`{printable(self.target)}` is the output", "choose another `ledger=`")
        if self.resume.summary is not None:
            check_not_overwritten([self.resume.summary], self.inputs.files)

    @property
    def ledger(self) -> str:
        """The path of the ledger, or "" for a temporary one."""
        if self.resume.no_ledger:
            return ""
        return f"{self.target}.ledger" if self.resume.ledger is None else realpath(self.resume.ledger)

    def shown(self, path: str) -> str:
        """The path as messages name it: one beside the output begins as that is typed, unless the output is a link."""
        folder, name = split(path)
        typed = dirname(self.resume.out)
        return join(typed, name) if folder == realpath(typed) else path

    @property
    def shares_ledger(self) -> bool:
        """True if the ledger may be that of other outputs too."""
        return self.ledger not in ("", f"{self.target}.ledger")
