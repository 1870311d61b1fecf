"""Results so far of a ledger's last run, which may have been stopped or killed."""

import sqlite3
from collections.abc import Iterator
from typing import Generic

from beitcli.ledger.codecs import Codec
from beitcli.ledger.results import COLUMNS, Results, Row
from beitcli.ledger.runs import LastRun, versions_of_runs
from beitcli.outputs.provenance import Provenance
from beitcli.records import Failure, ResultRecord

_REQUESTED = f"""
SELECT answered, code, fingerprint, pixels, scores, {COLUMNS}
FROM pictures JOIN (SELECT picture, min(position) AS first FROM run GROUP BY picture) ON picture = id
WHERE answered > 0 AND (answered = :last OR :is_complete OR asked IS NOT :last)
ORDER BY first
"""  # noqa: S608  # constants


class PartialResults(Generic[ResultRecord]):
    """The results that the last run gave or kept, and those that it would have kept of images not reached.

    Each image once, in order.
    """

    def __init__(self, database: sqlite3.Connection, last: LastRun, codec: Codec[ResultRecord]) -> None:
        self._database = database
        self._last = last
        self._results = Results(database, last.facts, codec)

    def records(self) -> Iterator[list[ResultRecord | Failure]]:
        """The records, in lists."""
        return self._results.records(row for _, _, row in self._rows())

    def count_successes(self) -> int:
        """The number of records that are no failures."""
        return sum(code is None for _, code, _ in self._rows())

    def provenance(self) -> Provenance:
        """The model of the run, and the versions of `beit` that computed the results."""
        run = self._last.run
        versions = versions_of_runs(self._database, {answered for answered, code, _ in self._rows() if code is None})
        return Provenance(run.model, run.digest, versions)

    def _rows(self) -> Iterator[tuple[int, str | None, Row]]:
        """Of each image the run that gave its result, the code of a failure, and the columns of its record."""
        number = self._last.number
        rows = self._database.execute(_REQUESTED, {"last": number, "is_complete": self._last.run.is_complete})
        for answered, code, fingerprint, pixels, scores, *row in rows:
            if answered == number or self._results.holds(fingerprint, scores, code, pixels):
                yield answered, code, row
