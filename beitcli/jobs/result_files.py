"""Results of earlier runs, with corrections -> a decision for each image."""

import logging
import math
import os
from dataclasses import dataclass
from itertools import chain

from beitcli.decisions import Decision, Keys, decisions, each_once
from beitcli.errors import UsageError
from beitcli.inputs.labelled import by_table
from beitcli.jobs.observer import Observer
from beitcli.outputs.formats import by_suffix
from beitcli.outputs.readers import RecordReader, check_no_page
from beitcli.records import Source, printable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """Files of records; labels that count before them, in a table; and the least score of a label that counts."""

    files: tuple[str, ...]
    corrections: str | None = None
    threshold: float | None = None

    def check(self) -> None:
        """Raise UsageError for no file, for files that are not there, and a threshold that is no number."""
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UsageError(f"`threshold={self.threshold}`: no score", "a number that a score may be, such as 0.5")
        if not self.files:
            raise UsageError("no results", "name a file of `beit batch`")
        for path in filter(None, (*self.files, self.corrections)):
            check_no_page(path)
            if not os.path.isfile(path):
                raise UsageError(f"`{printable(path)}` {'is no file' if os.path.exists(path) else 'does not exist'}")

    def decisions(self, keys: Keys, observer: Observer) -> tuple[list[Decision], int]:
        """Each image once, and the number of those left out. Raises UsageError for results that differ, BeitError."""
        corrections, found = self._corrections(keys), list[Decision]()
        readers = [RecordReader(path, *by_suffix(path)) for path in self.files]
        observer.stage("reading", unit="rows")
        observer.countable(lambda: chain.from_iterable(reader.count() for reader in readers))
        for reader in readers:
            as_of = os.stat(reader.path).st_mtime_ns
            for decision in decisions(reader.records(), corrections, self.threshold, keys, as_of):
                found.append(decision)
                observer.progress(1)
        unknown = corrections.keys() - {decision.key for decision in found}
        if unknown:
            name = printable(min(unknown))
            log.warning("%d corrections are of no image of the results, such as %s", len(unknown), name)
        return each_once(found)

    def _corrections(self, keys: Keys) -> dict[str, str]:
        """Corrected labels by key; the last of several counts."""
        labelled = by_table(self.corrections) if self.corrections else []
        return {keys.of(each.found): each.label for each in labelled if isinstance(each.found, Source)}
