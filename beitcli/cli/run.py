"""The run that `classify` and `batch` share: from options to records."""

import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from os.path import basename, realpath
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from beitcli import signals
from beitcli.cli import notices
from beitcli.cli.formats import BY_SUFFIX, FileFormat
from beitcli.cli.options import InputOptions, ModelOptions, OutputOptions
from beitcli.errors import ExitStatus, UsageError
from beitcli.inputs.sources import discover, open_list, read_list, shard
from beitcli.model.checkpoint import Checkpoint, open_checkpoint
from beitcli.model.memory import use_one_heap
from beitcli.outputs.destination import ReaderClosed, check_not_overwritten, writing
from beitcli.outputs.features import SUFFIXES as FEATURES
from beitcli.outputs.selection import Selection, indices_of
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Found, Skipped, Source
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.model.preprocessing import Preprocessing, ProcessorPreprocessing
    from beitcli.model.runtime import Runtime
    from beitcli.pipeline import ClassificationSettings, Settings

log = logging.getLogger(__name__)

Result = TypeVar("Result")
ResultRecord = TypeVar("ResultRecord")

MAX_WORKERS = 8
"""Maximum number of decoding processes without `--workers`."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Output stream and its format; with `padded` batches, no record depends on its neighbours.

    `replaces` is the file that the stream replaces, if any.
    """

    open: Callable[[], AbstractContextManager[BinaryIO]]
    format: FileFormat
    padded: bool
    replaces: str = ""


def run(
    inputs: InputOptions,
    model: ModelOptions,
    output: OutputOptions,
    destination: Destination,
    part: tuple[int, int] = (1, 1),
) -> ExitStatus:
    """Classify the inputs (or a part of them), write the records, and return the exit status.

    The destination is opened with the first batch: an earlier failure leaves no trace there. With nothing to classify,
    nothing heavy is imported.
    """
    tolerated, tally, timings = output.tolerated(), Tally(), Timings()
    found = shard(guard_inputs(find(inputs, tally.skipped), destination.replaces), *part)
    checkpoint, selection = choose(model, output)
    settings_of = partial(settings_for, inputs, model, output, checkpoint, padded=destination.padded)
    try:
        with (
            notices.progress(output.quiet) as progress,
            closing(predict_records(found, settings_of, timings)) as batches,
        ):
            first = next(batches, [])
            with (
                destination.open() as stream,
                writer(stream, layout_of(destination.format, output, checkpoint)) as rows,
            ):
                for records in chain([first], batches):
                    with signals.held():
                        with writing():
                            rows.write(selection.of(records))
                        tally.add(records)
                    signals.check()
                    progress.update(len(records))
    except ReaderClosed:
        return ExitStatus.OK
    except signals.Stopped:
        summarise(tally, timings, output.quiet)
        raise
    summarise(tally, timings, output.quiet)
    return tally.exit_status(tolerated)


def check(inputs: InputOptions, model: ModelOptions, output: OutputOptions) -> None:
    """Raises UsageError for options that contradict each other, before anything is read or loaded."""
    inputs.check()
    model.check()
    output.tolerated()
    if output.threshold is not None and not math.isfinite(output.threshold):
        raise UsageError(f"--threshold {output.threshold}: no score", "a number that a score may be, such as 0.5")


def find(inputs: InputOptions, skipped: Skipped) -> Iterator[Found]:
    listed = read_list(open_list(inputs.files_from), inputs.null) if inputs.files_from is not None else ()
    return discover(inputs.inputs or (), listed, inputs.walk(), skipped)


def guard_inputs(found: Iterable[Found], out: str) -> Iterator[Found]:
    """Pass the inputs on. Raises UsageError at an image that the output `out` ("" for none) would overwrite.

    An output with the suffix of records is no image, and may be listed among all files of a folder.
    """
    target = realpath(out)
    if not out or target.lower().endswith((*BY_SUFFIX, ".gz", ".json", *FEATURES)):
        yield from found
        return
    names = basename(out), basename(target)
    for item in found:
        if isinstance(item, Source) and item.location.endswith(names):
            check_not_overwritten([out], [item.location])
        yield item


def choose(model: ModelOptions, output: OutputOptions) -> tuple[Checkpoint, Selection]:
    """The checkpoint, and the selection of its predictions to write."""
    checkpoint = open_checkpoint(model.model, model.revision)
    selection = Selection(
        _lowest_score(output.threshold, checkpoint), indices_of(output.label or (), checkpoint.labels)
    )
    warn_if_demo(checkpoint)
    return checkpoint, selection


def _lowest_score(threshold: float | None, checkpoint: Checkpoint) -> float:
    """Lowest score to write. Raises UsageError for a threshold outside the checkpoint's range of scores."""
    least, most = (-math.inf, math.inf) if checkpoint.activation == "none" else (0.0, 1.0)
    if threshold is None:
        return least
    if not least <= threshold <= most:
        kind = "are raw numbers" if checkpoint.activation == "none" else "are from 0 to 1"
        raise UsageError(f"--threshold {threshold:g}: the scores of `{checkpoint.name}` {kind}")
    return threshold


def warn_if_demo(checkpoint: Checkpoint) -> None:
    if checkpoint.is_demo:
        log.info("the demo model only knows %s: it is for trying the tool", ", ".join(checkpoint.labels))


class Lookahead:
    """Iterator over the inputs that can count them ahead."""

    def __init__(self, found: Iterator[Found]) -> None:
        self._counted: deque[Found] = deque()
        self._rest = found

    def __iter__(self) -> "Lookahead":
        return self

    def __next__(self) -> Found:
        return self._counted.popleft() if self._counted else next(self._rest)

    def count(self, limit: int) -> int:
        """Number of remaining inputs, counted up to `limit`."""
        self._counted.extend(islice(self._rest, limit - len(self._counted)))
        return len(self._counted)


def predict_records(
    found: Iterator[Found],
    settings_of: Callable[["Lookahead"], "Settings[Result, ResultRecord]"],
    timings: Timings,
    known: Callable[[bytes], Result | None] = lambda _: None,
) -> Generator[list[ResultRecord | Failure], None, None]:
    """Records of the inputs, in lists. Without inputs, nothing heavy is imported."""
    first = next(found, None)
    if first is None:
        return
    use_one_heap()  # before torch starts threads
    from beitcli.pipeline import predict

    lookahead = Lookahead(chain([first], found))
    settings = settings_of(lookahead)
    signals.check()  # an import may have swallowed the exception of a signal
    log.debug(
        "%s on %s in %s%s, %d images a batch, %d decoding processes",
        settings.checkpoint.folder,
        settings.runtime.device,
        settings.runtime.dtype,
        ", compiled" if settings.runtime.compiled else "",
        settings.batch_size,
        settings.workers,
    )
    yield from predict(lookahead, settings, timings, known)


def settings_for(
    inputs: InputOptions,
    model: ModelOptions,
    output: OutputOptions,
    checkpoint: Checkpoint,
    lookahead: Lookahead,
    *,
    padded: bool,
    digest: bool = False,
) -> "ClassificationSettings":
    """Settings of a run; counts inputs in `lookahead` to decide whether compiling pays off."""
    from beitcli.model.runtime import choose_batch_size, choose_runtime, memory_of
    from beitcli.pipeline import Settings, classification

    runtime = choose_runtime(model.device, model.precision)
    preprocessing = _preprocessing(model, checkpoint)
    runtime = replace(runtime, many_batches=padded)
    if model.compile is None:
        count = None if inputs.files_from == "-" else lookahead.count  # stdin may still be growing
        runtime = replace(runtime, compiled=_is_worth_compiling(runtime, checkpoint, preprocessing, count))
    elif model.compile:
        runtime = replace(runtime, compiled=True)
    size = preprocessing.shape[:2] if preprocessing.shape[-1] == 3 else preprocessing.shape[1:]
    return Settings(
        task=classification(output.top_k),
        checkpoint=checkpoint,
        preprocessing=preprocessing,
        runtime=runtime,
        batch_size=model.batch_size or choose_batch_size(runtime.device, (size[0], size[1]), memory_of(runtime.device)),
        padded=padded,
        workers=workers_for(model),
        decoding=replace(inputs.decoding(digest), scaled_to=preprocessing.scaled_to if inputs.fast_decode else None),
        fetching=inputs.fetching(),
    )


def _is_worth_compiling(
    runtime: "Runtime",
    checkpoint: Checkpoint,
    preprocessing: "Preprocessing | ProcessorPreprocessing",
    count: Callable[[int], int] | None,
) -> bool:
    from beitcli.model.compiled import is_worth_compiling
    from beitcli.model.preprocessing import Preprocessing

    if runtime.device != "cpu" or runtime.dtype == "fp32" or not isinstance(preprocessing, Preprocessing):
        return False
    return is_worth_compiling(checkpoint, preprocessing, runtime, count)


def _preprocessing(model: ModelOptions, checkpoint: Checkpoint) -> "Preprocessing | ProcessorPreprocessing":
    from beitcli.model.preprocessing import processor_preprocessing

    if not checkpoint.is_beit:
        if model.preprocess == "paper":
            raise UsageError(f"--preprocess paper: `{checkpoint.name}` is no BEiT")
        return processor_preprocessing(checkpoint.folder, model.image_size)
    return beit_preprocessing(model, checkpoint)


def workers_for(model: ModelOptions) -> int:
    """Number of decoding processes: `--workers`, or one per core up to a maximum."""
    from beitcli.model.runtime import usable_cores

    return min(usable_cores(), MAX_WORKERS) if model.workers is None else model.workers


def open_beit(model: ModelOptions) -> Checkpoint:
    """The BEiT of `--model`. Raises UsageError for another architecture, or a size that its patches do not fill."""
    checkpoint = open_checkpoint(model.model, model.revision)
    if not checkpoint.is_beit:
        raise UsageError(f"`{checkpoint.name}` is no BEiT", "`beit models` lists those with an alias")
    _check_side(model, checkpoint)
    return checkpoint


def beit_preprocessing(model: ModelOptions, checkpoint: Checkpoint) -> "Preprocessing":
    """Preprocessing for a BEiT. Raises UsageError for a size that is no multiple of its patches."""
    from beitcli.model.preprocessing import checkpoint_preprocessing, paper_preprocessing

    _check_side(model, checkpoint)
    if model.preprocess == "paper":
        return paper_preprocessing(model.image_size or checkpoint.image_side)
    return checkpoint_preprocessing(checkpoint.processor, model.image_size)


def _check_side(model: ModelOptions, checkpoint: Checkpoint) -> None:
    patch = checkpoint.patch_side
    if model.image_size is not None and model.image_size % patch:
        raise UsageError(f"--image-size {model.image_size}: `{checkpoint.name}` needs a multiple of {patch}")


def layout_of(file_format: FileFormat, output: OutputOptions, checkpoint: Checkpoint) -> Layout:
    columns = min(output.top_k, len(checkpoint.labels))
    if file_format.name != "table":
        return Layout(file_format.name, columns, file_format.gzip)
    return Layout(file_format.name, columns, colored=output.colored)


def summarise(tally: Tally, timings: Timings, quiet: bool) -> None:
    for line in () if quiet else tally.lines(timings):
        notices.print_line(line)
