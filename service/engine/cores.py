"""How many cores there are to use: those that the process may run on, or fewer where its container has a limit."""

import os
from math import ceil
from pathlib import Path

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says what a container may use (control groups v2): "microseconds period", or "max period"."""


def usable_cores(limit: Path = CPU_LIMIT) -> int:
    """At least 1. A limit of one and a half cores is two: the second is used half of the time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = limit.read_text().split()
        return max(min(cores, ceil(int(quota) / int(period))), 1)
    except (OSError, ValueError, ZeroDivisionError):
        return cores
