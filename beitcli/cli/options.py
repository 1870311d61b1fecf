"""Options that commands share, each declared once.

A command takes whole records (`def batch(inputs: Inputs, model: ModelChoice, …)`), most of them requests of `jobs`;
`with_options` turns their fields into the command's own arguments and options, except for those that `Without`
excludes.
"""

import copy
import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_type_hints

import typer

from beitcli.errors import UsageError
from beitcli.jobs.requests import Compute, Inputs, Labels, Limits, ModelChoice, Resume
from beitcli.jobs.values import Range, ranges_of
from beitcli.model.catalog import KNOWN

Format = Literal["auto", "table", "csv", "tsv", "jsonl", "parquet"]

_INPUTS, _DECODING, _MODEL, _SPEED, _OUTPUT = "Inputs", "Decoding and fetching", "Model", "Speed", "Output"
_AGAIN = "Run it again"


def _option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, show_default=settings.pop("show_default", True), **settings)


def _flag(panel: str, *names: str, **settings: Any) -> Any:
    return _option(panel, *names, show_default=False, **settings)


def _aliases() -> list[str]:
    return [known.alias for known in KNOWN]


BOM = _flag(_OUTPUT, "--bom", help="Begin CSV and TSV with a byte order mark, by which Excel knows UTF-8.")

FLAGS: dict[type, dict[str, Any]] = {
    Inputs: {
        "inputs": typer.Argument(
            metavar="INPUT...",
            help="Files, folders (recursive), quoted globs (`**` too), http(s) URLs, or `-` for one image on stdin.",
            show_default=False,
        ),
        "files_from": _option(
            _INPUTS, "--files-from", metavar="FILE|-", help="Read paths and URLs from a list, one per line."
        ),
        "null": _flag(_INPUTS, "--null", "-0", help="Entries of the list are separated by NUL."),
        "ext": _option(
            _INPUTS,
            "--ext",
            "-e",
            metavar="EXT",
            help="Take files with this suffix from folders (commas, or repeated).",
        ),
        "exclude": _option(
            _INPUTS, "--exclude", "-E", metavar="GLOB", help="Leave out names or paths below a folder (repeatable)."
        ),
        "hidden": _flag(_INPUTS, "--hidden", "-H", help="Take hidden files and folders too."),
        "follow": _flag(_INPUTS, "--follow", "-L", help="Follow links in folders."),
        "max_depth": _option(_INPUTS, "--max-depth", metavar="N", help="Go N folders deep; 1 = direct children only."),
    },
    Limits: {
        "fast_decode": _flag(
            _DECODING, "--fast-decode", help="Decode JPEG at a fraction of its size, at least twice the target."
        ),
        "max_pixels": _option(_DECODING, "--max-pixels", metavar="N", help="Larger images are too_large, undecoded."),
        "decode_timeout": _option(_DECODING, "--decode-timeout", metavar="S", help="Seconds for decoding one image."),
        "url_timeout": _option(_DECODING, "--url-timeout", metavar="S", help="Seconds for one URL, retries included."),
        "url_max_bytes": _option(
            _DECODING, "--url-max-bytes", metavar="N", help="Maximum size of the file behind a URL."
        ),
    },
    ModelChoice: {
        "model": _option(
            _MODEL,
            "--model",
            "-m",
            envvar="BEIT_MODEL",
            autocompletion=_aliases,
            help="Alias (see `beit models`), Hub id or folder; `demo` needs no download.",
        ),
        "revision": _option(
            _MODEL, "--revision", metavar="REV", help="Hub commit, tag or branch [default: the cached one, else main]."
        ),
        "preprocess": _option(
            _MODEL, "--preprocess", help="As in the checkpoint's file, or as for the published figures."
        ),
        "image_size": _option(_MODEL, "--image-size", metavar="N", help="Another resolution [default: the model's]."),
    },
    Compute: {
        "batch_size": _option(
            _SPEED,
            "--batch-size",
            "-b",
            metavar="N",
            envvar="BEIT_BATCH_SIZE",
            help="Images per model batch.",
        ),
        "workers": _option(
            _SPEED,
            "--workers",
            "-j",
            metavar="N",
            envvar="BEIT_WORKERS",
            help="Decoding processes; 0 = decode in the main process, unprotected against crashing decoders.",
        ),
        "device": _option(
            _SPEED, "--device", metavar="auto|cpu|cuda[:N]|mps", envvar="BEIT_DEVICE", help="Where the model runs."
        ),
        "dtype": _option(
            _SPEED,
            "--dtype",
            help="Precision; auto = fp16 (to train: bf16) on a GPU, bf16 on a CPU faster in it, else fp32. "
            "int8 = faster on a CPU, and less exact.",
        ),
        "fp16": _flag(_SPEED, "--fp16", help="Same as --dtype fp16."),
        "compile": _option(
            _SPEED,
            "--compile/--no-compile",
            show_default=False,
            help="Compile the network ahead [default: on a CPU, where that takes a second, if the run is long enough].",
        ),
        "devices": _option(
            _SPEED,
            "--devices",
            metavar="all|D,D,…",
            help="Not one device, but a worker on each of these.",
        ),
        "engine": _option(_SPEED, "--engine", help="Workers on this machine, or on a Ray cluster."),
        "address": _option(
            _SPEED, "--address", metavar="HOST:PORT", help="The Ray cluster [default: RAY_ADDRESS, else this machine]."
        ),
        "strict": _flag(_SPEED, "--strict", help="Allow no workers whose hardware gives other last digits."),
        "check_int8": _flag(
            _SPEED,
            "--check/--no-check",
            help="In int8 compare the first results with those of --dtype auto [default: --check].",
        ),
    },
    Labels: {
        "top_k": _option(_OUTPUT, "--top-k", "-k", metavar="N", help="Labels per image; 0 = all."),
        "threshold": _option(_OUTPUT, "--threshold", metavar="P", help="Leave out labels that score below P."),
        "label": _option(
            _OUTPUT,
            "--label",
            metavar="L",
            help="Only images whose best label is L (commas, or repeated), and failures.",
        ),
    },
    Resume: {
        "out": _option(
            _OUTPUT, "--out", "-o", metavar="FILE|-", help="Output file, written complete or not at all; `-` = stdout."
        ),
        "shard": _option(
            _INPUTS, "--shard", metavar="I/N", help="Only part I (from 1) of N, the same parts everywhere."
        ),
        "dry_run": _flag(_AGAIN, "--dry-run", help="Count what would be done, without doing it."),
        "retry_errors": _flag(_AGAIN, "--retry-errors", help="Retry all failures, not only those that may pass."),
        "refresh_urls": _flag(_AGAIN, "--refresh-urls", help="Check URLs for changes, and download changed ones."),
        "no_dedupe": _flag(_AGAIN, "--no-dedupe", help="Run identical images through the model separately."),
        "prune": _flag(_AGAIN, "--prune", help="Delete results of images no longer among the inputs."),
        "fresh": _flag(_AGAIN, "--fresh", help="Start over; the old ledger becomes FILE.ledger.old."),
        "ledger": _option(
            _AGAIN,
            "--ledger",
            metavar="FILE",
            help="Keep the results here, for several outputs [default: the --out with .ledger].",
        ),
        "no_ledger": _flag(_AGAIN, "--no-ledger", help="Keep no results: every run processes all images."),
        "allow_empty": _flag(_AGAIN, "--allow-empty", help="Let an empty list empty a FILE that has rows."),
        "wait": _flag(_AGAIN, "--wait", help="Wait for another run on the same FILE to end, instead of exit status 4."),
        "summary": _option(_OUTPUT, "--summary", metavar="FILE", help="Write a summary for machines here, as JSON."),
    },
}
"""The option of every field of the requests; types, defaults, ranges and checks are the requests' own."""


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Format, messages and exit status: what the command line alone decides."""

    format: Annotated[
        Format,
        _option(
            _OUTPUT, "--format", "-f", help="auto: by the suffix of --out; else table on a terminal, CSV otherwise."
        ),
    ] = "auto"
    bom: Annotated[bool, BOM] = False
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

    def check(self) -> None:
        """Raise UsageError for an invalid --fail-on."""
        self.tolerated()

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


def examples(*lines: str) -> str:
    """Examples at the end of a help page."""
    return "Examples:\n\n" + "\n\n".join(f"`{line}`" for line in lines)


class Without:
    """Fields excluded from a record: `Annotated[OutputOptions, Without("label")]` keeps their defaults."""

    def __init__(self, *names: str) -> None:
        self.names = names


def with_options(command: Callable[..., None], flags: Mapping[type, Mapping[str, Any]] = FLAGS) -> Callable[..., None]:
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
        options, ranges = flags.get(types[name]), ranges_of(types[name])
        for field in records[name]:
            keyword_only = inspect.Parameter.KEYWORD_ONLY
            annotation = annotations[field.name]
            if options:
                annotation = Annotated[annotation, _with_range(options[field.name], ranges.get(field.name))]
            parameters.append(inspect.Parameter(field.name, keyword_only, default=field.default, annotation=annotation))
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spread


def _with_range(option: Any, allowed: Range | None) -> Any:
    """The option with the range of its field."""
    if not allowed:
        return option
    limited = copy.copy(option)
    limited.min, limited.max = allowed.least, allowed.most
    return limited


def _fields_of(hint: Any) -> list[Field[Any]]:
    """Fields of a record of options, without the excluded ones."""
    left_out = {name for extra in getattr(hint, "__metadata__", ()) for name in extra.names}
    return [field for field in fields(getattr(hint, "__origin__", hint)) if field.name not in left_out]
