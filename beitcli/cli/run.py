"""The job that `classify` and `batch` share: from options to records, in one straight line."""

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
from beitcli.outputs.destination import ReaderGone, check_apart, writing
from beitcli.outputs.features import SUFFIXES as FEATURES
from beitcli.outputs.selection import Selection, indices_of
from beitcli.outputs.summary import Tally
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Failure, Found, Skipped, Source
from beitcli.timings import Timings

if TYPE_CHECKING:
    from beitcli.model.recipe import ProcessorRecipe, Recipe
    from beitcli.model.runtime import Runtime
    from beitcli.pipeline import ClassificationSettings, Settings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Answered = TypeVar("Answered")

MOST_WORKERS = 8
"""More decoding processes than this are started only when asked for."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the bytes go and in which format; `padded` batches keep them independent of neighbours.

    `replaces` is the file whose place they take, if that is one.
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
    """Classifies what the options ask for (or a part of it), writes the records, and says how to end.

    The destination is opened with the first answers: what fails before leaves no trace there. With nothing to classify,
    nothing heavy is imported.
    """
    tolerated, tally, timings = output.tolerated(), Tally(), Timings()
    found = shard(kept_apart(find(inputs, tally.skipped), destination.replaces), *part)
    checkpoint, selection = choose(model, output)
    settings_of = partial(settings_for, inputs, model, output, checkpoint, padded=destination.padded)
    try:
        with (
            notices.progress(output.quiet) as progress,
            closing(answers_to(found, settings_of, timings)) as answers,
        ):
            first = next(answers, [])
            with (
                destination.open() as stream,
                writer(stream, layout_of(destination.format, output, checkpoint)) as rows,
            ):
                for records in chain([first], answers):
                    with signals.held():
                        with writing():
                            rows.write(selection.of(records))
                        tally.add(records)
                    signals.check()
                    progress.update(len(records))
    except ReaderGone:
        return ExitStatus.OK
    except signals.Stopped:
        summarise(tally, timings, output.quiet)
        raise
    summarise(tally, timings, output.quiet)
    return tally.exit_status(tolerated)


def check(inputs: InputOptions, model: ModelOptions, output: OutputOptions) -> None:
    """Raises UsageError for options that make no sense together, before anything is read or loaded."""
    inputs.check()
    model.check()
    output.tolerated()
    if output.threshold is not None and not math.isfinite(output.threshold):
        raise UsageError(f"--threshold {output.threshold}: no score", "a number that a score may be, such as 0.5")


def find(inputs: InputOptions, skipped: Skipped) -> Iterator[Found]:
    listed = read_list(open_list(inputs.files_from), inputs.null) if inputs.files_from is not None else ()
    return discover(inputs.inputs or (), listed, inputs.walk(), skipped)


def kept_apart(found: Iterable[Found], out: str) -> Iterator[Found]:
    """What was found. Raises UsageError at a picture that the output `out` ("" for none) would take the place of.

    One with the suffix of records is no picture, and may be on a list of all files there are.
    """
    target = realpath(out)
    if not out or target.lower().endswith((*BY_SUFFIX, ".gz", ".json", *FEATURES)):
        yield from found
        return
    names = basename(out), basename(target)
    for item in found:
        if isinstance(item, Source) and item.location.endswith(names):
            check_apart([out], [item.location])
        yield item


def choose(model: ModelOptions, output: OutputOptions) -> tuple[Checkpoint, Selection]:
    """The model that answers, and which of its answers are written."""
    checkpoint = open_checkpoint(model.model, model.revision)
    selection = Selection(
        _lowest_score(output.threshold, checkpoint), indices_of(output.label or (), checkpoint.labels)
    )
    say_if_demo(checkpoint)
    return checkpoint, selection


def _lowest_score(threshold: float | None, checkpoint: Checkpoint) -> float:
    """The least score that is written. Raises UsageError where `--threshold` is no score of the checkpoint's."""
    least, most = (-math.inf, math.inf) if checkpoint.activation == "none" else (0.0, 1.0)
    if threshold is None:
        return least
    if not least <= threshold <= most:
        kind = "are raw numbers" if checkpoint.activation == "none" else "are from 0 to 1"
        raise UsageError(f"--threshold {threshold:g}: the scores of `{checkpoint.name}` {kind}")
    return threshold


def say_if_demo(checkpoint: Checkpoint) -> None:
    if checkpoint.is_demo:
        log.info("the demo model only tells %s apart: it is for trying the tool", ", ".join(checkpoint.labels))


class Ahead:
    """What was found, of which some may be counted before it is taken."""

    def __init__(self, found: Iterator[Found]) -> None:
        self._counted: deque[Found] = deque()
        self._rest = found

    def __iter__(self) -> "Ahead":
        return self

    def __next__(self) -> Found:
        return self._counted.popleft() if self._counted else next(self._rest)

    def count(self, most: int) -> int:
        """How many there are, counted up to so many."""
        self._counted.extend(islice(self._rest, most - len(self._counted)))
        return len(self._counted)


def answers_to(
    found: Iterator[Found],
    settings_of: Callable[["Ahead"], "Settings[Answer, Answered]"],
    timings: Timings,
    known: Callable[[bytes], Answer | None] = lambda _: None,
) -> Generator[list[Answered | Failure], None, None]:
    """The records of what was found, in lists. Where nothing was, nothing heavy is imported."""
    first = next(found, None)
    if first is None:
        return
    use_one_heap()  # before torch starts threads
    from beitcli.pipeline import predict

    ahead = Ahead(chain([first], found))
    settings = settings_of(ahead)
    signals.check()  # an import may have swallowed what a signal raised
    log.debug(
        "%s on %s in %s%s, %d pictures a batch, %d decoding processes",
        settings.checkpoint.folder,
        settings.runtime.device,
        settings.runtime.dtype,
        ", compiled" if settings.runtime.compiled else "",
        settings.batch_size,
        settings.workers,
    )
    yield from predict(ahead, settings, timings, known)


def settings_for(
    inputs: InputOptions,
    model: ModelOptions,
    output: OutputOptions,
    checkpoint: Checkpoint,
    ahead: Ahead,
    *,
    padded: bool,
    digest: bool = False,
) -> "ClassificationSettings":
    """How the run goes."""
    from beitcli.model.runtime import choose_batch_size, choose_runtime, memory_of
    from beitcli.pipeline import Settings, classification

    runtime = choose_runtime(model.device, model.precision)
    recipe = _recipe(model, checkpoint)
    runtime = replace(runtime, crowded=padded)
    if model.compile is None:
        count = None if inputs.files_from == "-" else ahead.count  # somebody may still be writing that
        runtime = replace(runtime, compiled=_is_worth_compiling(runtime, checkpoint, recipe, count))
    elif model.compile:
        runtime = replace(runtime, compiled=True)
    size = recipe.shape[:2] if recipe.shape[-1] == 3 else recipe.shape[1:]
    return Settings(
        task=classification(output.top_k),
        checkpoint=checkpoint,
        recipe=recipe,
        runtime=runtime,
        batch_size=model.batch_size or choose_batch_size(runtime.device, (size[0], size[1]), memory_of(runtime.device)),
        padded=padded,
        workers=workers_for(model),
        decoding=replace(inputs.decoding(digest), scaled_to=recipe.scaled_to if inputs.fast_decode else None),
        fetching=inputs.fetching(),
    )


def _is_worth_compiling(
    runtime: "Runtime",
    checkpoint: Checkpoint,
    recipe: "Recipe | ProcessorRecipe",
    count: Callable[[int], int] | None,
) -> bool:
    from beitcli.model.compiled import is_worth_compiling
    from beitcli.model.recipe import Recipe

    if runtime.device != "cpu" or runtime.dtype == "fp32" or not isinstance(recipe, Recipe):
        return False
    return is_worth_compiling(checkpoint, recipe, runtime, count)


def _recipe(model: ModelOptions, checkpoint: Checkpoint) -> "Recipe | ProcessorRecipe":
    from beitcli.model.recipe import processor_recipe

    if not checkpoint.is_beit:
        if model.preprocess == "paper":
            raise UsageError(f"--preprocess paper: `{checkpoint.name}` is no BEiT")
        return processor_recipe(checkpoint.folder, model.image_size)
    return beit_recipe(model, checkpoint)


def workers_for(model: ModelOptions) -> int:
    """How many processes decode: as asked for, or one a core."""
    from beitcli.model.runtime import usable_cores

    return min(usable_cores(), MOST_WORKERS) if model.workers is None else model.workers


def open_beit(model: ModelOptions) -> Checkpoint:
    """The checkpoint asked for. Raises UsageError for another architecture, or a size that its patches do not fill."""
    checkpoint = open_checkpoint(model.model, model.revision)
    if not checkpoint.is_beit:
        raise UsageError(f"`{checkpoint.name}` is no BEiT", "`beit models` lists those with an alias")
    _check_side(model, checkpoint)
    return checkpoint


def beit_recipe(model: ModelOptions, checkpoint: Checkpoint) -> "Recipe":
    """How pictures become pixels for a BEiT. Raises UsageError for a size that its patches do not fill."""
    from beitcli.model.recipe import checkpoint_recipe, paper_recipe

    _check_side(model, checkpoint)
    if model.preprocess == "paper":
        return paper_recipe(model.image_size or checkpoint.image_side)
    return checkpoint_recipe(checkpoint.processor, model.image_size)


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
        notices.say(line)
