"""Cores, memory, disk and processor are those that this process really gets."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vit_edge.runtime.doctor import machine

from .machines import examined

CGROUPS = Path("/sys/fs/cgroup")

CORES = os.cpu_count() or 1


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """Give a real control group that grants half a core; a process joins it by writing its number there."""
    version2 = (CGROUPS / "cgroup.controllers").exists()
    group = (CGROUPS if version2 else CGROUPS / "cpu") / f"vit-edge-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error})")
    try:
        try:
            if version2:
                (group / "cpu.max").write_text("50000 100000")
            else:
                (group / "cpu.cfs_quota_us").write_text("50000")
        except OSError as error:
            pytest.skip(f"control groups grant no processor time here ({error})")
        yield group
    finally:
        group.rmdir()


def test_a_control_groups_quota_is_told_with_the_threads_that_follow(half_a_core: Path) -> None:
    """A service with CPUQuota=50%: ONNX Runtime's own default would start a thread for every core."""

    def join() -> None:
        (half_a_core / "cgroup.procs").write_text(str(os.getpid()))

    findings = examined(before=join)
    cores = findings["processor.cores"]
    assert cores["details"]["quota"] == 0.5
    assert cores["details"]["threads"] == 1
    assert cores["severity"] == "note"
    assert cores["found"].startswith(f"of {CORES} ")
    assert cores["found"].endswith(" the control group grants the time of 0.5, so 1 thread")
    assert "`CPUQuota=`" in cores["cure"]


@pytest.mark.skipif(CORES == 1 or not hasattr(os, "sched_setaffinity"), reason="there is one core to choose")
def test_an_affinity_mask_is_told_with_the_threads_that_follow() -> None:
    """As after `taskset -c 0`."""
    one = {min(os.sched_getaffinity(0))}
    cores = examined(before=lambda: os.sched_setaffinity(0, one))["processor.cores"]
    assert cores["found"].startswith(f"of {CORES} ")
    assert cores["found"].endswith(" the affinity mask grants 1, so 1 thread")
    details = cores["details"]
    assert (details["machine"], details["affinity"], details["threads"]) == (CORES, 1, 1)
    assert "`taskset`" in cores["cure"]


@pytest.mark.parametrize(
    ("architecture", "features", "severity", "words"),
    [
        ("x86_64", ["avx2", "avx512bw", "avx512_vnni"], "ok", "fast in INT8 with avx512_vnni"),
        ("x86_64", ["avx2", "avx_vnni"], "ok", "fast in INT8 with avx_vnni"),
        ("x86_64", ["avx2", "avx512bw"], "note", "has AVX2 and none of VNNI"),
        ("x86_64", [], "note", "not even AVX2"),
        ("aarch64", ["asimddp", "i8mm"], "ok", "fast in INT8 with asimddp, i8mm"),
        ("aarch64", [], "note", "no dot product instructions"),
    ],
    ids=["Zen 4", "Alder Lake", "Skylake server", "Celeron", "Graviton 3", "Raspberry Pi 4"],
)
def test_a_processors_int8_is_judged(
    architecture: str, features: list[str], severity: str, words: str
) -> None:
    """What another processor has cannot be made true on this one; the features are those that Linux tells of them."""
    finding = machine.int8({"architecture": architecture, "name": "it", "features": features})
    assert finding.severity == severity
    assert words in finding.found
    assert bool(finding.cure) == (severity == "note")


def test_a_system_that_tells_no_features_is_no_slow_one() -> None:
    """MacOS and Windows have no /proc/cpuinfo."""
    finding = machine.int8({"architecture": "arm64", "name": "M2"})
    assert finding.severity == "ok"
    assert "does not tell" in finding.found


def meminfo(root: Path, available_kb: int) -> None:
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        "MemTotal:        2048000 kB\nMemFree:            1000 kB\n"
        f"MemAvailable:   {available_kb} kB\nHugePages_Total:  0\n"
    )


def test_little_memory_is_a_note(tmp_path: Path) -> None:
    """The kernel ends a process that takes more than there is, without a word from it."""
    meminfo(tmp_path, 102400)
    finding = machine.memory(tmp_path, tmp_path / "absent")
    assert finding is not None
    assert finding.severity == "note"
    assert finding.found.startswith("100 of 2000 MB of memory are free")


@pytest.mark.parametrize(
    ("own", "file", "text"),
    [
        ("0::/vision.service\n", "vision.service/memory.max", f"{128 << 20}\n"),
        ("5:memory:/docker/1\n", "memory/memory.limit_in_bytes", f"{128 << 20}\n"),
        ("5:memory:/docker/1\n", "memory/docker/1/memory.limit_in_bytes", f"{128 << 20}\n"),
    ],
    ids=["version 2", "version 1, in the container", "version 1, on the host"],
)
def test_a_control_groups_memory_counts(own: str, file: str, text: str, tmp_path: Path) -> None:
    """MemoryMax= and --memory: /proc/meminfo still shows the whole machine's."""
    meminfo(tmp_path, 1024000)
    (tmp_path / "own").write_text(own)
    (tmp_path / "sys/fs/cgroup" / file).parent.mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup" / file).write_text(text)
    finding = machine.memory(tmp_path, tmp_path / "own")
    assert finding is not None
    assert finding.severity == "note"
    assert "the control group grants 128 MB" in finding.found


def test_a_limit_that_is_none_is_not_told(tmp_path: Path) -> None:
    """Version 1 writes the largest number of pages for no limit."""
    meminfo(tmp_path, 1024000)
    (tmp_path / "own").write_text("5:memory:/\n")
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    finding = machine.memory(tmp_path, tmp_path / "own")
    assert finding is not None
    assert finding.found == "1000 of 2000 MB of memory are free"


def test_a_python_of_32_bits_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a 64-bit kernel it says aarch64 everywhere else; such a Python cannot be had here, only its largest index."""
    assert machine.system().severity == "ok"
    monkeypatch.setattr("sys.maxsize", 2**31 - 1)
    assert machine.system().severity == "problem"
    assert "64-bit edition" in machine.system().cure


def test_a_system_without_meminfo_says_nothing_of_memory(tmp_path: Path) -> None:
    """MacOS and Windows."""
    assert machine.memory(tmp_path) is None


def test_a_cache_that_cannot_be_written_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in its place stops root as well."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "file" / "cache"))
    finding = machine.cache()
    assert finding.severity == "note"
    assert "cannot be written to" in finding.found
    assert "VIT_EDGE_CACHE" in finding.cure


def test_a_cache_that_is_not_there_yet_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made when it is first needed, and an examination makes nothing."""
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "a" / "b"))
    finding = machine.cache()
    assert finding.severity == "ok"
    assert finding.found.startswith(f"cache in {tmp_path / 'a' / 'b'}, ")
    assert list(tmp_path.iterdir()) == []


def test_a_user_without_a_home_is_told_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a bare number."""
    for variable in ("VIT_EDGE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    # The list of users is the outer edge: a process cannot become a user that is in none.
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    finding = machine.cache()
    assert finding.severity == "note"
    assert finding.found.startswith("this user has no home folder for a cache: ")
    assert finding.cure == "Set VIT_EDGE_CACHE to a folder that this user can write to."


def test_a_disk_that_is_nearly_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real disk, which no test may fill, against a bound that it does not reach."""
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "_LITTLE_DISK_MB", 10**12)
    finding = machine.cache()
    assert finding.severity == "note"
    assert re.fullmatch(
        rf"\d+ MB of disk are left for the cache folder {re.escape(str(tmp_path))}", finding.found
    )
    assert "or set VIT_EDGE_CACHE to a folder on another disk" in finding.cure
