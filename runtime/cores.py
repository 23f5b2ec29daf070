"""How many processor cores this process may really use."""

import math
import os
from pathlib import Path

# A container's share of processor time: "quota period" in microseconds, or "max" (cgroup v2, cpu.max).
_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
# The same as two files (cgroup v1); a quota of -1 means no limit.
_CGROUP_V1 = (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


def usable_cores() -> int:
    """Give the number of cores that the affinity mask and the container's quota grant, at least 1.

    ONNX Runtime's own default counts the machine's cores, and in a container limited to fewer its threads then
    wait for one another.
    """
    # Where the system knows no affinity (macOS, Windows), all cores are granted.
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, granted if quota is None else min(granted, math.ceil(quota)))


def _quota() -> float | None:
    try:
        if _CGROUP_V2.exists():
            quota, period = _CGROUP_V2.read_text().split()
        else:
            quota, period = (path.read_text().strip() for path in _CGROUP_V1)
    except (OSError, ValueError):
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
