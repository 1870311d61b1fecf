"""Images that a command has left or failed to process, as lines on stderr."""

from collections import Counter
from collections.abc import Sequence

from beitcli.cli import notices
from beitcli.errors import ExitStatus
from beitcli.records import printable

_FAILURES_SHOWN = 10


def reasons(left: Counter[str]) -> str:
    """The line that says why images were left, the commonest reason first."""
    return "left: " + ", ".join(f"{count} {reason}" for reason, count in left.most_common())


def print_failures(failed: Sequence[tuple[str, str]], what: str) -> ExitStatus:
    """Print the first names with their reasons and the number of all, also in a quiet run; the exit status."""
    if not failed:
        return ExitStatus.OK
    for name, reason in failed[:_FAILURES_SHOWN]:
        notices.print_line(f"`{printable(name)}`: {printable(reason)}")
    more = f", {_FAILURES_SHOWN} of which are named here" if len(failed) > _FAILURES_SHOWN else ""
    notices.print_line(f"beit: error: {len(failed)} {what}{more}")
    return ExitStatus.SOME_FAILED
