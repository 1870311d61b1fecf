"""`python -m beitcli`, and what the `beit` script starts."""

import sys

from beitcli.cli import main

if __name__ == "__main__":
    sys.exit(main())
