"""Pictures that were in flight when a decoder died, decoded one at a time where nothing else can be lost."""

import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from beitcli.inputs.decode import Decoding, Outcome, Preprocess, outcome
from beitcli.inputs.worker import held_signals, settle_in
from beitcli.records import UNKNOWN, Failure, Fetched, Identity, Source, source_of


def decode_alone(
    items: Sequence[Source | Fetched], preprocess: Preprocess, decoding: Decoding
) -> Generator[Outcome, None, None]:
    """What becomes of each picture, in order.

    They go one by one through a fresh process that never imports torch. A picture that ends two of them, or one by the
    time limit, gets the code (`timeout`, `out_of_memory` or `decoder_crashed`): a single death may come from outside.
    """
    with _Cell(preprocess, decoding) as cell:
        for item in items:
            answer = cell.decode(item)
            if answer is None and cell.exit_code != -signal.SIGALRM:
                answer = cell.decode(item)
            if answer is None:
                answer = Failure(source_of(item), *_cause_of_death(cell.exit_code, decoding.seconds), _identity(item))
            yield answer


class _Cell:
    """A process that decodes, and another one when it has died; `exit_code` is that of the last one."""

    def __init__(self, preprocess: Preprocess, decoding: Decoding) -> None:
        self.exit_code = 0
        self._task = (preprocess, decoding)
        self._process: SpawnProcess | None = None

    def __enter__(self) -> "_Cell":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()

    def decode(self, item: Source | Fetched) -> Outcome | None:
        """What becomes of the picture, or None where the process died at it."""
        process = self._process or self._start()
        try:
            self._pipe.send(item)
            answer: Outcome = self._pipe.recv()
            return answer
        except (EOFError, ConnectionError):
            self._pipe.close()
            process.join()
            self.exit_code, self._process = process.exitcode or 0, None
            return None

    def _start(self) -> SpawnProcess:
        self._pipe, there = multiprocessing.Pipe()
        arguments = (there, *self._task)
        process = multiprocessing.get_context("spawn").Process(target=_decode_all, args=arguments, daemon=True)
        with held_signals():
            process.start()
        there.close()
        self._process = process
        return process


def _cause_of_death(exit_code: int, seconds: float) -> tuple[str, str]:
    """The error code and message for how the process ended."""
    if exit_code == -signal.SIGALRM:
        return "timeout", f"not decoded within {seconds:g} s (--decode-timeout)"
    if exit_code == -signal.SIGKILL:
        return "out_of_memory", "the decoder was killed, as the kernel does when memory runs out"
    ended_by = signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"
    return "decoder_crashed", f"the decoder crashed ({ended_by})"


def _identity(item: Source | Fetched) -> Identity:
    """That of the picture as it is now: the process that read it has not lived to tell."""
    if isinstance(item, Fetched):
        return item.identity
    with suppress(OSError):
        return Identity.of_file(os.stat(item.location))
    return UNKNOWN


def _decode_all(pipe: Connection, preprocess: Preprocess, decoding: Decoding) -> None:
    settle_in()
    while True:
        try:
            item: Source | Fetched = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome(item, preprocess, decoding, nullcontext()))
