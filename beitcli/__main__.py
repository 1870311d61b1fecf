"""`python -m beitcli`, and what the `beit` script starts."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while modules are imported ends the process, without a traceback

from beitcli.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
