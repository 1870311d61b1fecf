"""`python -m beitcli`, and what the `beit` script starts."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules are imported ends the process, without a traceback

from beitcli.cli import main  # noqa: E402
from beitcli.cli.process import end_process  # noqa: E402


def run() -> None:
    """Run the command line, and end the process with its exit status."""
    end_process(main())


if __name__ == "__main__":
    run()
