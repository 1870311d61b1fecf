"""Report of a run -> exit status of the process."""

from beitcli.cli.options import OutputOptions
from beitcli.errors import ExitStatus
from beitcli.jobs.observer import Report


def exit_status(report: Report, output: OutputOptions) -> ExitStatus:
    """SOME_FAILED where more images failed than `--fail-on` tolerates."""
    return report.tally.exit_status(output.tolerated())
