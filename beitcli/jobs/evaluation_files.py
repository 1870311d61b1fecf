"""Files of an evaluation: the figures as JSON, and the plots."""

import importlib.util
import json
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from beitcli.errors import OutputError, UsageError
from beitcli.outputs.destination import check_writable, is_stream, replaced_file, stream_to, writing
from beitcli.records import printable

if TYPE_CHECKING:
    from beitcli.evaluation.report import Evaluation

_PLOTS = ("confusion.csv", "confusion.png", "reliability.png")


@dataclass(frozen=True, slots=True)
class EvaluationFiles:
    """The JSON file, or None, and the folder of the plots, or None."""

    json: str | None
    plots: str | None

    @property
    def paths(self) -> list[str]:
        """The paths of all files to write."""
        plots = [] if self.plots is None else [os.path.join(self.plots, name) for name in _PLOTS]
        return [*([] if self.json is None else [self.json]), *plots]

    def check(self) -> None:
        """Raises UsageError or OutputError for files that cannot be written."""
        if self.json is not None:
            check_writable(self.json)
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
        from beitcli.evaluation.report import as_json

        if self.json is not None:
            with _stream(self.json) as stream, writing():
                stream.write(json.dumps(as_json(evaluation), indent=1, allow_nan=False).encode() + b"\n")
        if self.plots is not None:
            from beitcli.evaluation.plots import confusion_plot, confusion_table, reliability_plot

            with writing():
                os.makedirs(self.plots, exist_ok=True)
            for name, draw in zip(_PLOTS, (confusion_table, confusion_plot, reliability_plot), strict=True):
                with replaced_file(os.path.join(self.plots, name), keeps_part=False) as stream, writing():
                    draw(evaluation.figures, stream)


def _stream(path: str) -> AbstractContextManager[BinaryIO]:
    return stream_to(path) if is_stream(path) else replaced_file(path, keeps_part=False)
