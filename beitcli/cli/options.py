"""Options that commands share, each declared once.

A command takes whole records of options (`def batch(inputs: InputOptions, model: ModelOptions, …)`); `with_options`
turns their fields into the command's own arguments and options, except for those that `Without` excludes.
"""

import functools
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from beitcli.errors import UsageError
from beitcli.inputs.formats import SUFFIXES
from beitcli.inputs.sources import Walk
from beitcli.model.catalog import KNOWN
from beitcli.outputs.destination import is_stream
from beitcli.outputs.ledger import Recompute

if TYPE_CHECKING:
    from beitcli.inputs.decode import Decoding
    from beitcli.inputs.fetch import FetchLimits

Format = Literal["auto", "table", "csv", "tsv", "jsonl", "parquet"]
Dtype = Literal["auto", "fp32", "bf16", "fp16"]

_DAY = 86_400.0  # seconds; system timers take no infinity

_INPUTS, _DECODING, _MODEL, _SPEED, _OUTPUT = "Inputs", "Decoding and fetching", "Model", "Speed", "Output"
_AGAIN = "Run it again"


def _option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, show_default=settings.pop("show_default", True), **settings)


def _flag(panel: str, *names: str, **settings: Any) -> Any:
    return _option(panel, *names, show_default=False, **settings)


def _aliases() -> list[str]:
    return [known.alias for known in KNOWN]


@dataclass(frozen=True, slots=True)
class InputOptions:
    """Inputs, and limits for decoding and fetching them."""

    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders (recursive), quoted globs (`**` too), http(s) URLs, or `-` for one image on stdin.",
            show_default=False,
        ),
    ] = None
    files_from: Annotated[
        str | None,
        _option(_INPUTS, "--files-from", metavar="FILE|-", help="Read paths and URLs from a list, one per line."),
    ] = None
    null: Annotated[bool, _flag(_INPUTS, "--null", "-0", help="Entries of the list are separated by NUL.")] = False
    ext: Annotated[
        list[str] | None,
        _option(_INPUTS, "--ext", "-e", metavar="EXT", help="Take files with this suffix from folders (repeatable)."),
    ] = None
    exclude: Annotated[
        list[str] | None,
        _option(
            _INPUTS, "--exclude", "-E", metavar="GLOB", help="Leave out names or paths below a folder (repeatable)."
        ),
    ] = None
    hidden: Annotated[bool, _flag(_INPUTS, "--hidden", "-H", help="Take hidden files and folders too.")] = False
    follow: Annotated[bool, _flag(_INPUTS, "--follow", "-L", help="Follow links in folders.")] = False
    max_depth: Annotated[
        int | None,
        _option(_INPUTS, "--max-depth", metavar="N", min=1, help="Go N folders deep; 1 = direct children only."),
    ] = None
    fast_decode: Annotated[
        bool,
        _flag(_DECODING, "--fast-decode", help="Decode JPEG at a fraction of its size, at least twice the target."),
    ] = False
    max_pixels: Annotated[
        int, _option(_DECODING, "--max-pixels", metavar="N", min=1, help="Larger images are too_large, undecoded.")
    ] = 200_000_000
    decode_timeout: Annotated[
        float,
        _option(
            _DECODING, "--decode-timeout", metavar="S", min=0.001, max=_DAY, help="Seconds for decoding one image."
        ),
    ] = 60.0
    url_timeout: Annotated[
        float,
        _option(
            _DECODING, "--url-timeout", metavar="S", min=0.001, max=_DAY, help="Seconds for one URL, retries included."
        ),
    ] = 60.0
    url_max_bytes: Annotated[
        int, _option(_DECODING, "--url-max-bytes", metavar="N", min=1, help="Maximum size of the file behind a URL.")
    ] = 64_000_000

    def check(self) -> None:
        """Raises UsageError for options that contradict each other."""
        if not self.inputs and self.files_from is None:
            raise UsageError("nothing to classify", "name files, folders, globs or URLs, or a list by --files-from")
        if self.null and self.files_from is None:
            raise UsageError("--null is for a list", "add --files-from FILE, or `--files-from -` for standard input")
        if self.files_from == "-" and self.inputs and "-" in self.inputs:
            raise UsageError("`-` and `--files-from -` both want standard input")

    @property
    def files(self) -> list[str]:
        """Arguments that may name a file to read: the inputs and the list."""
        return [*(self.inputs or ()), *([self.files_from] if self.files_from else ())]

    def decoding(self, digest: bool) -> "Decoding":
        """Limits for decoding; the target size is added later, by the preprocessing."""
        from beitcli.inputs.decode import Decoding

        return Decoding(self.max_pixels, self.decode_timeout, digest=digest)

    def fetching(self) -> "FetchLimits":
        from beitcli.inputs.fetch import FetchLimits

        return FetchLimits(self.url_timeout, self.url_max_bytes)

    def walk(self) -> Walk:
        extensions = [part.strip("*. ").lower() for text in self.ext or [] for part in text.split(",")]
        suffixes = tuple(f".{extension}" for extension in extensions if extension)
        if self.ext and not suffixes:
            raise UsageError(f"--ext {' '.join(self.ext)}: no suffix", "for example --ext jpg,png")
        suffixes = suffixes or SUFFIXES
        return Walk(suffixes, tuple(self.exclude or ()), self.hidden, self.follow, self.max_depth)


def check_no_walk_options(walk: Walk) -> None:
    """Raises UsageError for options of a folder walk together with --labels."""
    if walk != Walk():
        raise UsageError("--labels names each image, and nothing is walked", "leave out --ext, --exclude and the like")


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Model, device and speed."""

    model: Annotated[
        str,
        _option(
            _MODEL,
            "--model",
            "-m",
            envvar="BEIT_MODEL",
            autocompletion=_aliases,
            help="Alias (see `beit models`), Hub id or folder; `demo` needs no download.",
        ),
    ] = "large-384"
    revision: Annotated[
        str | None,
        _option(
            _MODEL, "--revision", metavar="REV", help="Hub commit, tag or branch [default: the cached one, else main]."
        ),
    ] = None
    preprocess: Annotated[
        Literal["checkpoint", "paper"],
        _option(_MODEL, "--preprocess", help="As in the checkpoint's file, or as for the published figures."),
    ] = "checkpoint"
    image_size: Annotated[
        int | None,
        _option(_MODEL, "--image-size", metavar="N", min=1, help="Another resolution [default: the model's]."),
    ] = None
    batch_size: Annotated[
        int | None,
        _option(
            _SPEED,
            "--batch-size",
            "-b",
            metavar="N",
            min=1,
            max=4096,
            envvar="BEIT_BATCH_SIZE",
            help="Images per model batch.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        _option(
            _SPEED,
            "--workers",
            "-j",
            metavar="N",
            min=0,
            max=256,
            envvar="BEIT_WORKERS",
            help="Decoding processes; 0 = decode in the main process, unprotected against crashing decoders.",
        ),
    ] = None
    device: Annotated[
        str,
        _option(
            _SPEED, "--device", metavar="auto|cpu|cuda[:N]|mps", envvar="BEIT_DEVICE", help="Where the model runs."
        ),
    ] = "auto"
    dtype: Annotated[
        Dtype,
        _option(
            _SPEED,
            "--dtype",
            help="Precision; auto = fp16 (to train: bf16) on a GPU, bf16 on a CPU faster in it, else fp32.",
        ),
    ] = "auto"
    fp16: Annotated[bool, _flag(_SPEED, "--fp16", help="Same as --dtype fp16.")] = False
    compile: Annotated[
        bool | None,
        _option(
            _SPEED,
            "--compile/--no-compile",
            show_default=False,
            help="Compile the network ahead [default: in bf16 on a CPU, if the run is long enough].",
        ),
    ] = None

    def check(self) -> None:
        """Raises UsageError for options that contradict each other."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise UsageError(f"--device {self.device}: no such device", "one of auto, cpu, cuda, cuda:N, mps")
        if self.fp16 and self.dtype not in ("auto", "fp16"):
            raise UsageError(f"--fp16 and --dtype {self.dtype} contradict each other")

    @property
    def precision(self) -> str:
        return "fp16" if self.fp16 else self.dtype


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Labels to write, format, messages and exit status."""

    top_k: Annotated[int, _option(_OUTPUT, "--top-k", "-k", metavar="N", min=0, help="Labels per image; 0 = all.")] = 5
    threshold: Annotated[
        float | None, _option(_OUTPUT, "--threshold", metavar="P", help="Leave out labels that score below P.")
    ] = None
    label: Annotated[
        list[str] | None,
        _option(_OUTPUT, "--label", metavar="L", help="Only images whose best label is L (repeatable), and failures."),
    ] = None
    format: Annotated[
        Format,
        _option(
            _OUTPUT, "--format", "-f", help="auto: by the suffix of --out; else table on a terminal, CSV otherwise."
        ),
    ] = "auto"
    fail_on: Annotated[
        str,
        _option(
            _OUTPUT, "--fail-on", metavar="never|any|SHARE", help="Exit 3 if more than this share of images failed."
        ),
    ] = "any"
    quiet: Annotated[bool, _flag(_OUTPUT, "--quiet", "-q", help="No notices, progress or summary; errors only.")] = (
        False
    )
    verbose: Annotated[bool, _flag(_OUTPUT, "--verbose", "-v", help="Report what is loaded and chosen.")] = False
    color: Annotated[
        Literal["auto", "always", "never"],
        _option(_OUTPUT, "--color", help="Colours in the table; NO_COLOR turns them off."),
    ] = "auto"

    @property
    def colored(self) -> bool | None:
        """Colours in tables: on, off, or None to follow the terminal."""
        return {"always": True, "never": False}.get(self.color, False if os.environ.get("NO_COLOR") else None)

    def tolerated(self) -> float | None:
        """Tolerated share of failed images, None for all. Raises UsageError for an invalid --fail-on."""
        if self.fail_on in ("never", "any"):
            return None if self.fail_on == "never" else 0.0
        try:
            share = float(self.fail_on)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise UsageError(f"--fail-on {self.fail_on}: no such share", "one of never, any, or a number from 0 to 1")
        return share


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Output file, and reuse of earlier results."""

    out: Annotated[
        str,
        _option(
            _OUTPUT, "--out", "-o", metavar="FILE|-", help="Output file, written complete or not at all; `-` = stdout."
        ),
    ] = "-"
    shard: Annotated[
        str | None,
        _option(_INPUTS, "--shard", metavar="I/N", help="Only part I (from 1) of N, the same parts everywhere."),
    ] = None
    dry_run: Annotated[bool, _flag(_AGAIN, "--dry-run", help="Count what would be done, without doing it.")] = False
    retry_errors: Annotated[
        bool, _flag(_AGAIN, "--retry-errors", help="Retry all failures, not only those that may pass.")
    ] = False
    refresh_urls: Annotated[
        bool, _flag(_AGAIN, "--refresh-urls", help="Check URLs for changes, and download changed ones.")
    ] = False
    no_dedupe: Annotated[
        bool, _flag(_AGAIN, "--no-dedupe", help="Run identical images through the model separately.")
    ] = False
    prune: Annotated[bool, _flag(_AGAIN, "--prune", help="Delete results of images no longer among the inputs.")] = (
        False
    )
    fresh: Annotated[bool, _flag(_AGAIN, "--fresh", help="Start over; the old ledger becomes FILE.ledger.old.")] = False
    no_ledger: Annotated[
        bool, _flag(_AGAIN, "--no-ledger", help="Keep no results: every run processes all images.")
    ] = False
    wait: Annotated[bool, _flag(_AGAIN, "--wait", help="Wait for another run on the same FILE to end.")] = False

    def check(self, file_option: str = "--out FILE") -> None:
        """Raises UsageError for options that contradict each other; `file_option` is the option that makes a ledger."""
        self.part()
        kept = ("dry_run", "retry_errors", "refresh_urls", "no_dedupe", "prune", "fresh")
        given = next((name for name in kept if getattr(self, name)), None)
        if given and (self.no_ledger or self.streams):
            option = f"--{given.replace('_', '-')}"
            raise UsageError(f"{option} needs a ledger", "drop --no-ledger" if self.no_ledger else f"add {file_option}")

    @property
    def streams(self) -> bool:
        """True if the output is a stream, which has no ledger."""
        return self.out == "-" or is_stream(self.out)

    def again(self) -> Recompute:
        """Stored results to compute again."""
        return Recompute(errors=self.retry_errors, urls=self.refresh_urls)

    def part(self) -> tuple[int, int]:
        """Part number (from 1) and number of parts. Raises UsageError for an invalid --shard."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", "1/1" if self.shard is None else self.shard)
        number, count = (int(text) for text in match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(f"--shard {self.shard}: no such part", "for example --shard 1/4, the first of four")
        return number, count


def examples(*lines: str) -> str:
    """Examples at the end of a help page."""
    return "Examples:\n\n" + "\n\n".join(f"`{line}`" for line in lines)


class Without:
    """Fields excluded from a record: `Annotated[OutputOptions, Without("label")]` keeps their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command: expand each record of options among its parameters into single options for Typer."""
    types = get_type_hints(command)
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    records = {name: _fields_of(hints[name]) for name in signature.parameters if is_dataclass(types[name])}

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        for name, taken in records.items():
            values[name] = types[name](**{field.name: values.pop(field.name) for field in taken})
        command(**values)

    parameters = []
    for name, parameter in signature.parameters.items():
        if name not in records:
            parameters.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
            continue
        annotations = get_type_hints(types[name], include_extras=True)
        for field in records[name]:
            keyword_only = inspect.Parameter.KEYWORD_ONLY
            parameters.append(
                inspect.Parameter(field.name, keyword_only, default=field.default, annotation=annotations[field.name])
            )
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread


def _fields_of(hint: Any) -> list[Field[Any]]:
    """Fields of a record of options, without the excluded ones."""
    left_out = {name for extra in getattr(hint, "__metadata__", ()) for name in extra.names}
    return [field for field in fields(getattr(hint, "__origin__", hint)) if field.name not in left_out]
