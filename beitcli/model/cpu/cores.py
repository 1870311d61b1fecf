"""Cores that this process may use."""

import math
import os
from contextlib import suppress

CPU_QUOTA = "/sys/fs/cgroup/cpu.max"
"""A container's CPU quota on Linux (cgroup v2): microseconds of CPU time per period, and the period."""


def usable_cores() -> int:
    """Number of cores that this process may use: its CPU affinity, or less where a container's quota is lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such limit: another system, or `max`
        with open(CPU_QUOTA) as limit:
            quota, period = map(int, limit.read().split())
        return max(1, min(cores, math.ceil(quota / period)))
    return cores
