"""Threads are as many as the process may really use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vit_edge
from vit_edge.runtime.cores import parse_quota, physical_cores, quota_cores, usable_cores

MACHINE = float(os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system knows no affinity")
def test_an_affinity_mask_limits_the_cores() -> None:
    """What `taskset` or a job scheduler grants; more threads than that wait for one another."""
    script = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]);"
        "from vit_edge.runtime.cores import usable_cores; print(usable_cores())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(vit_edge.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "1\n"


def test_this_process_may_use_between_one_and_all_cores() -> None:
    """Zero would mean all of the machine's to ONNX Runtime."""
    assert 1 <= usable_cores() <= MACHINE


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2.0),
        ("50000 100000\n", 0.5),
        ("150000 100000\n", 1.5),
        ("-1\n 100000\n", None),
        ("", None),
        (" ", None),
        ("max", None),
        ("100000", None),
        ("100000 0", None),
        ("a b", None),
        ("1 2 3", None),
    ],
)
def test_a_quota_is_read_as_the_kernel_writes_it(text: str, cores: float | None) -> None:
    """The texts are those of cpu.max and of version 1's two files; anything else sets no limit."""
    assert parse_quota(text) == cores


def control_groups(folder: Path, own: str, quotas: dict[str, str]) -> float:
    """Lay out files as the kernel shows them, and read them."""
    (folder / "own").write_text(own)
    for name, text in quotas.items():
        file = folder / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return quota_cores(folder / "cgroup", folder / "own")


def test_a_containers_quota_counts(tmp_path: Path) -> None:
    """`docker run --cpus 0.5`: the container sees its own group as the root."""
    assert control_groups(tmp_path, "0::/\n", {"cpu.max": "50000 100000\n"}) == 0.5


def test_a_services_quota_counts(tmp_path: Path) -> None:
    """The CPUQuota= of systemd is written to the service's own group, below the root."""
    quotas = {"system.slice/camera.service/cpu.max": "30000 100000\n", "system.slice/cpu.max": "max 100000\n"}
    assert control_groups(tmp_path, "0::/system.slice/camera.service\n", quotas) == 0.3


def test_the_smallest_quota_above_a_process_counts(tmp_path: Path) -> None:
    """A service cannot use more than its slice."""
    quotas = {"a/b/cpu.max": "90000 100000\n", "a/cpu.max": "25000 100000\n", "c/cpu.max": "10000 100000\n"}
    assert control_groups(tmp_path, "0::/a/b\n", quotas) == 0.25


def test_version_ones_quota_counts(tmp_path: Path) -> None:
    """Older distributions, such as those of many boards, still have it."""
    own = "4:cpu,cpuacct:/docker/x\n1:name=systemd:/docker/x\n"
    quotas = {"cpu/cpu.cfs_quota_us": "60000\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert control_groups(tmp_path, own, quotas) == 0.6


def test_version_ones_quota_counts_on_the_host_too(tmp_path: Path) -> None:
    """Outside a container the root has no quota, and a service's group lies below it, within its slice."""
    own = "4:cpu,cpuacct:/camera.slice/camera.service\n0::/\n"
    quotas = {
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "cpu/camera.slice/cpu.cfs_quota_us": "40000\n",
        "cpu/camera.slice/cpu.cfs_period_us": "100000\n",
        "cpu/camera.slice/camera.service/cpu.cfs_quota_us": "90000\n",
        "cpu/camera.slice/camera.service/cpu.cfs_period_us": "100000\n",
    }
    assert control_groups(tmp_path, own, quotas) == 0.4


@pytest.mark.parametrize(
    ("own", "quotas"),
    [
        ("", {}),
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        ("0::/a\n", {"b/cpu.max": "10000 100000\n"}),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
        ("0::/../..\n", {}),
    ],
    ids=["no groups", "no limit", "another's limit", "no limit in version 1", "outside the namespace"],
)
def test_without_a_quota_every_core_is_granted(own: str, quotas: dict[str, str], tmp_path: Path) -> None:
    """A machine of one's own has none."""
    assert control_groups(tmp_path, own, quotas) == MACHINE


def test_a_system_without_control_groups_grants_every_core(tmp_path: Path) -> None:
    """As macOS and Windows are."""
    assert quota_cores(tmp_path / "absent", tmp_path / "absent too") == MACHINE


def test_hardware_threads_of_one_core_count_once(tmp_path: Path) -> None:
    """They share the units that compute products, so that a second one only adds waiting."""
    # Eight processors, two on each of four cores, numbered as Linux does on x86: the second ones come last.
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 4},{number % 4 + 4}\n")
    assert physical_cores(range(8), tmp_path) == 4
    # An affinity mask may grant both threads of one core, or one of each.
    assert physical_cores({0, 4}, tmp_path) == 1
    assert physical_cores({0, 5}, tmp_path) == 2
    # A system that does not describe its processors grants each as a core.
    assert physical_cores({8, 9}, tmp_path) == 2
    assert physical_cores({0, 4, 9}, tmp_path) == 2
