"""Pictures that were in flight when a decoder died, decoded one at a time where nothing else can be lost."""

import multiprocessing
import signal
from collections.abc import Generator, Sequence
from contextlib import nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from beitcli.inputs.decode import DecodeLimits, Outcome, Preprocess, outcome
from beitcli.inputs.worker import held_signals, settle_in
from beitcli.records import Failure, Fetched, Source, source_of


def decode_alone(
    items: Sequence[Source | Fetched], preprocess: Preprocess, limits: DecodeLimits
) -> Generator[Outcome, None, None]:
    """What becomes of each picture, in order.

    They go one by one through a fresh process that never imports torch. When it dies, the picture it was at gets the
    code (`timeout`, `out_of_memory` or `decoder_crashed`), and the rest go through the next process.
    """
    waiting = list(reversed(items))
    while waiting:
        here, there = multiprocessing.Pipe()
        arguments = (there, preprocess, limits)
        process = multiprocessing.get_context("spawn").Process(target=_decode_all, args=arguments, daemon=True)
        with held_signals():
            process.start()
        there.close()
        try:
            while waiting and process.is_alive():
                yield _answer(here, waiting.pop(), process, limits)
        finally:
            here.close()
            process.kill()
            process.join()


def _answer(pipe: Connection, item: Source | Fetched, process: SpawnProcess, limits: DecodeLimits) -> Outcome:
    try:
        pipe.send(item)
        answer: Outcome = pipe.recv()
        return answer
    except (EOFError, ConnectionError):
        process.join()
        return Failure(source_of(item), *_cause_of_death(process.exitcode or 0, limits.seconds))


def _cause_of_death(exit_code: int, seconds: float) -> tuple[str, str]:
    """The error code and message for how the process ended."""
    if exit_code == -signal.SIGALRM:
        return "timeout", f"not decoded within {seconds:g} s (--decode-timeout)"
    if exit_code == -signal.SIGKILL:
        return "out_of_memory", "the decoder was killed, as the kernel does when memory runs out"
    ended_by = signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"
    return "decoder_crashed", f"the decoder crashed ({ended_by})"


def _decode_all(pipe: Connection, preprocess: Preprocess, limits: DecodeLimits) -> None:
    settle_in()
    while True:
        try:
            item: Source | Fetched = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome(item, preprocess, limits, nullcontext()))
