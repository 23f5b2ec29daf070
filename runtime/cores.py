"""How many processor cores this process may really use."""

import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> int:
    """Give the number of cores that the affinity mask and the quota of the container or service grant, at least 1.

    ONNX Runtime's own default counts the machine's cores, and in a container limited to fewer its threads then
    wait for one another. Of the two hardware threads of a core one counts, as in that default: they share the units
    that compute products.
    """
    granted = affinity_cores()
    if hasattr(os, "sched_getaffinity"):
        granted = physical_cores(os.sched_getaffinity(0), TOPOLOGY)
    return max(1, min(granted, math.ceil(quota_cores(CGROUPS, OWN_CGROUP))))


def physical_cores(processors: Collection[int], topology: Path) -> int:
    """Count the cores behind the processors that the system numbers, of which one core can have several.

    Args:
        processors: Their numbers.
        topology: Where the system describes them, as at ``/sys/devices/system/cpu``; one that it does not describe
            there is a core of its own.
    """
    files = (topology / f"cpu{number}" / "topology" / "thread_siblings_list" for number in processors)
    siblings = [_read(file).strip() for file in files]
    return len({text for text in siblings if text}) + siblings.count("")


def affinity_cores() -> int:
    """Give the number of cores in the affinity mask; all, where the system knows none (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def own_groups(own: Path, controller: str) -> Iterator[Path]:
    """Give a process's control group and all above it, relative to where they are mounted (cgroups(7)).

    Args:
        own: The file that names them, as ``/proc/self/cgroup`` does.
        controller: Version 1's name of what is controlled (``cpu``); empty for version 2, which has one tree for all.
    """
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2) if line.count(":") > 1 else ("", "-", "")
        if controller in controllers.split(","):
            group = Path(path.lstrip("/"))
            # In a namespace of its own a process may see its group above the root, as "0::/../x".
            if ".." not in group.parts:
                yield from (group, *group.parents)
                return
    yield Path()


def _texts(cgroups: Path, own: Path) -> Iterator[str]:
    # Version 2: a container sees its own group as the root; a service's group lies below, as do its parents' limits.
    for group in own_groups(own, ""):
        yield _read(cgroups / group / "cpu.max")
    # Version 1: the two numbers are files of their own. What a container reads as its group's path is often the
    # host's, which it does not have; then the root, the last of the groups, is its own.
    for group in own_groups(own, "cpu"):
        yield " ".join(_read(cgroups / "cpu" / group / f"cpu.cfs_{part}_us") for part in ("quota", "period"))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
