"""How many processor cores this process may really use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Give the number of cores that the affinity mask and the quota of the container or service grant, at least 1.

    ONNX Runtime's own default counts the machine's cores, and in a container limited to fewer its threads then
    wait for one another.
    """
    # Where the system knows no affinity (macOS, Windows), all cores are granted.
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(granted, math.ceil(quota_cores(_CGROUPS, _OWN_CGROUP))))


def quota_cores(cgroups: Path, own: Path) -> float:
    """Give the smallest share of processor time that the control groups of a process grant, in cores.

    Args:
        cgroups: Where the control groups are mounted, as at ``/sys/fs/cgroup``.
        own: The file that names the process's own, as ``/proc/self/cgroup`` does.

    Returns:
        The quota, or the machine's cores where there is none.
    """
    quotas = [parse_quota(text) for text in _texts(cgroups, own)]
    return min((quota for quota in quotas if quota is not None), default=float(os.cpu_count() or 1))


def parse_quota(text: str) -> float | None:
    """Read ``quota period`` in microseconds, as a ``cpu.max`` holds it; None where it sets no limit.

    >>> parse_quota("150000 100000")
    1.5
    >>> parse_quota("max 100000")
    """
    try:
        quota, period = (int(part) for part in text.split())
        # Version 1 writes -1 for no limit.
        return quota / period if quota > 0 else None
    except (ValueError, ZeroDivisionError):
        return None


def _texts(cgroups: Path, own: Path) -> Iterator[str]:
    # Version 2: a container sees its own group as the root; a service's group lies below, as do its parents' limits.
    for group in _groups(own):
        yield _read(cgroups / group / "cpu.max")
    # Version 1: the two numbers are files of their own.
    yield " ".join(_read(cgroups / "cpu" / f"cpu.cfs_{part}_us") for part in ("quota", "period"))


def _groups(own: Path) -> Iterator[Path]:
    """Give the process's group and all above it, relative to the mount (cgroups(7), "0::/path" in version 2)."""
    for line in _read(own).splitlines():
        if line.startswith("0::/"):
            group = Path(line.removeprefix("0::/"))
            # In a namespace of its own a process may see its group above the root, as "0::/../x".
            if ".." not in group.parts:
                yield from (group, *group.parents)
                return
    yield Path()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
