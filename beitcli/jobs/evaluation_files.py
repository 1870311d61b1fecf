"""Files of an evaluation: the figures as JSON, the plots, the mistakes, and the page of all images."""

import importlib.util
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from beitcli.errors import OutputError, UsageError
from beitcli.jobs.gallery_page import check_page
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, stream_to, writing
from beitcli.records import printable

if TYPE_CHECKING:
    from beitcli.evaluation.report import Evaluation

_PLOTS = ("confusion.csv", "confusion.png", "reliability.png")


@dataclass(frozen=True, slots=True)
class EvaluationFiles:
    """The JSON file, the folder of the plots, the table of the mistakes and the page; None for those not written.

    The page is written by the job, which has the images that it shows.
    """

    json: str | None
    plots: str | None
    mistakes: str | None
    page: str | None

    @property
    def paths(self) -> list[str]:
        """The paths of all files to write."""
        plots = [] if self.plots is None else [os.path.join(self.plots, name) for name in _PLOTS]
        return [*filter(None, (self.json, self.mistakes, self.page)), *plots]

    def check(self) -> None:
        """Raise UsageError or OutputError for files that cannot be written."""
        for path in filter(None, (self.json, self.mistakes)):
            check_writable(path)
        if self.json is not None and self.mistakes is not None and _is_same(self.json, self.mistakes):
            raise UsageError(f"`out=` and `mistakes=` are one file, `{printable(self.json)}`", "name two")
        if self.page is not None:
            check_page(self.page)
        if self.plots is None:
            return
        if importlib.util.find_spec("matplotlib") is None:
            raise UsageError("`plots=` needs matplotlib", "`pip install 'beitcli[plots]'`")
        if os.path.lexists(self.plots) and not os.path.isdir(self.plots):
            raise OutputError(f"`{printable(self.plots)}` is no folder", "name one; it is created if missing")
        check_writable(
            os.path.join(self.plots, "confusion.csv") if os.path.isdir(self.plots) else self.plots.rstrip("/")
        )

    def write(self, evaluation: "Evaluation") -> None:
        """Write the files, each complete or not at all. Raises OutputError where that fails."""
        from beitcli.evaluation.report import as_json, mistakes_table

        if self.json is not None:
            with _stream(self.json) as stream, writing():
                stream.write(json.dumps(as_json(evaluation), indent=1, allow_nan=False).encode() + b"\n")
        if self.mistakes is not None:
            with _stream(self.mistakes) as stream, writing():
                mistakes_table(evaluation, stream)
        if self.plots is not None:
            from beitcli.evaluation.plots import confusion_plot, confusion_table, reliability_plot

            with writing():
                os.makedirs(self.plots, exist_ok=True)
            for name, draw in zip(_PLOTS, (confusion_table, confusion_plot, reliability_plot), strict=True):
                with replaced_file(os.path.join(self.plots, name), keeps_part=False) as stream, writing():
                    draw(evaluation.figures, stream)


def _is_same(path: str, other: str) -> bool:
    return not is_stream(path) and os.path.realpath(path) == os.path.realpath(other)


def _stream(path: str) -> AbstractContextManager[BinaryIO]:
    return stream_to(path) if is_stream(path) else replaced_file(path, keeps_part=False)
