"""The peak memory of a command: a direct child of the tests would start with their own memory."""

import resource
import subprocess
import sys

LAUNCHER = (sys.executable, __file__)
"""Prefix of a command that prints its peak memory in KB (on macOS in bytes) as the last line of stderr."""

if __name__ == "__main__":
    status = subprocess.run(sys.argv[1:], timeout=150).returncode
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)  # noqa: T201
    sys.exit(status)
