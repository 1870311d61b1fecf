"""Report of a run -> exit status of the process."""

from beitcli.cli import notices
from beitcli.cli.options import OutputOptions
from beitcli.errors import ExitStatus
from beitcli.jobs.observer import Report


def exit_status(report: Report, output: OutputOptions) -> ExitStatus:
    """SOME_FAILED where more images failed than `--fail-on` tolerates; a quiet run prints how many."""
    status = report.tally.exit_status(output.tolerated())
    if status == ExitStatus.SOME_FAILED and output.quiet:
        notices.print_line(f"beit: error: {report.tally.failures()}")
    return status
