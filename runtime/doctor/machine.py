"""The machine: what of its processor counts for INT8, the cores and memory that it grants, and its cache folder."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..cache import CACHE_VARIABLE, cache_folder
from ..cores import (
    CGROUPS,
    OWN_CGROUP,
    TOPOLOGY,
    affinity_cores,
    own_groups,
    physical_cores,
    quota_cores,
    usable_cores,
)
from ..processor import DOT_PRODUCTS, processor
from .finding import Finding

_LITTLE_MEMORY_MB = 300
_LITTLE_DISK_MB = 200

_CACHE_CURE = f"Set {CACHE_VARIABLE} to a folder that this user can write to."


def system() -> Finding:
    """Say what runs here: Python, NumPy, the system."""
    try:
        numpy = f", NumPy {version('numpy')}"
    except PackageNotFoundError:
        numpy = ""
    bits = 64 if sys.maxsize > 2**32 else 32
    details = {
        "python": platform.python_version(),
        "bits": bits,
        "system": platform.platform(),
        "executable": sys.executable,
    }
    found = f"Python {platform.python_version()}{numpy}, {_system_name()} on {platform.machine()}"
    if bits == 64:
        return Finding("system.python", "ok", found, details=details)
    return Finding(
        "system.python",
        "problem",
        f"{found}: this Python has 32 bits, and ONNX Runtime has no wheels for it",
        "Install the 64-bit edition of this system; most boards sold since 2016 can run it.",
        details,
    )


def int8(here: Mapping[str, Any] | None = None) -> Finding:
    """Say how well the processor computes in INT8.

    Args:
        here: The processor as `processor` gives it; this machine's unless given.
    """
    here = processor() if here is None else here
    name = here.get("name") or here["architecture"]
    if "features" not in here:
        return Finding(
            "processor.int8", "ok", f"{name}: this system does not tell its features", details=here
        )
    features = here["features"]
    dots = [feature for feature in features if feature in DOT_PRODUCTS]
    if dots:
        return Finding("processor.int8", "ok", f"{name}, fast in INT8 with {', '.join(dots)}", details=here)
    if here["architecture"].lower() in ("x86_64", "amd64", "i686"):
        wide = "AVX2" if "avx2" in features else "not even AVX2"
        return Finding(
            "processor.int8",
            "note",
            f"{name} has {wide} and none of VNNI: INT8 is slower, and sums of 8-bit products can saturate",
            "Make the file with `vit-edge export --target cpu-avx2`, which keeps the sums in range.",
            here,
        )
    return Finding(
        "processor.int8",
        "note",
        f"{name} has no dot product instructions (asimddp, i8mm): INT8 gains little over float32 here",
        "Measure both with `vit-edge bench`, and export a smaller network where neither is fast enough.",
        here,
    )


def cores() -> Finding:
    """Say how many cores this process is granted, and so how many threads compute one answer."""
    machine, affinity = os.cpu_count() or 1, affinity_cores()
    quota, threads = quota_cores(CGROUPS, OWN_CGROUP), usable_cores()
    physical = physical_cores(range(machine), TOPOLOGY)
    details = {
        "machine": machine,
        "physical": physical,
        "affinity": affinity,
        "quota": quota,
        "threads": threads,
    }
    name = f"{machine} core{'s' if machine > 1 else ''}"
    if physical < machine:
        name = f"{machine} processors, two to a core"
    so = f"so {threads} thread{'s' if threads > 1 else ''}"
    limits = []
    if affinity < machine:
        limits.append(f"the affinity mask grants {affinity}")
    if quota < machine:
        limits.append(f"the control group grants the time of {quota:g}")
    if not limits:
        return Finding("processor.cores", "ok", f"{name}, all granted, {so}", details=details)
    raises = {
        "affinity": "the affinity mask (`taskset`, `AllowedCPUs=`, `--cpuset-cpus`)",
        "quota": "the quota (`CPUQuota=`, `--cpus`)",
    }
    which = [raises[key] for key in ("affinity", "quota") if details[key] < machine]
    return Finding(
        "processor.cores",
        "note",
        f"of {name} {' and '.join(limits)}, {so}",
        f"Raise {' and '.join(which)} if this process is meant to have more.",
        details,
    )


def memory(root: Path = Path("/"), own: Path = OWN_CGROUP) -> Finding | None:
    """Say how much memory there is to take; None where the system does not tell.

    Args:
        root: Where the system's files begin.
        own: The file that names the process's control groups.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    # In kB, each: "MemAvailable:   1234 kB" (proc_meminfo(5)).
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    total, free = (kilobytes.get(key, 0) // 1024 for key in ("MemTotal", "MemAvailable"))
    limits = list(_memory_limits_mb(root / "sys/fs/cgroup", own))
    details = {"total_mb": total, "available_mb": free, "limit_mb": min(limits, default=None)}
    found = f"{free} of {total} MB of memory are free"
    if limits and min(limits) < total:
        found += f", and the control group grants {min(limits)} MB"
        free = min(free, *limits)
    if free >= _LITTLE_MEMORY_MB:
        return Finding("system.memory", "ok", found, details=details)
    return Finding(
        "system.memory",
        "note",
        f"{found}: a large model may not fit",
        "End other programs, raise the limit, or take a smaller network (`vit-edge models` lists them).",
        details,
    )


def cache() -> Finding:
    """Say whether the cache folder can be written to and has room."""
    folder = cache_folder()
    if folder is None:
        return Finding(
            "system.cache",
            "note",
            "this user has no home folder for a cache: what a provider compiles is compiled anew at each start",
            _CACHE_CURE,
        )
    there = next(path for path in (folder, *folder.parents) if path.exists())
    # A file in a folder's place, a folder of another user, a file system mounted read-only.
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    free = shutil.disk_usage(there).free // 10**6
    details = {"folder": str(folder), "writable": writable, "free_mb": free}
    if not writable:
        found = (
            f"the cache folder {folder} cannot be written to: what is compiled is compiled anew at each start"
        )
        return Finding("system.cache", "note", found, _CACHE_CURE, details)
    if free < _LITTLE_DISK_MB:
        return Finding(
            "system.cache",
            "note",
            f"{free} MB of disk are left for the cache folder {folder}",
            f"Free some space there, or set {CACHE_VARIABLE} to a folder on another disk.",
            details,
        )
    return Finding("system.cache", "ok", f"cache in {folder}, {free / 1e3:.1f} GB free", details=details)


def _memory_limits_mb(cgroups: Path, own: Path) -> Iterator[int]:
    files = [cgroups / group / "memory.max" for group in own_groups(own, "")]
    files += [cgroups / "memory" / group / "memory.limit_in_bytes" for group in own_groups(own, "memory")]
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        # Version 2 writes "max" for no limit, version 1 a number near 2**63.
        if text.isdigit() and int(text) < 2**60:
            yield int(text) >> 20


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"
