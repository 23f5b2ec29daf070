"""Checks that the wheels of a 64-bit ARM device exist, and with a model that ONNX Runtime answers there as torch does.

``python benchmarks/aarch64.py WORK [--wheel dist/vit_edge-*.whl] [--verify MODEL]``. The first needs pip alone: all
that ``vit-edge[runtime-headless]`` requires is resolved for aarch64 and installed into WORK/site, nothing is built.
``--verify`` runs `vit-edge verify` on the capsule in a file under qemu-user, with the arm64 Python of Debian; it needs
Debian with ``debootstrap``, root, and qemu-user of version 8.1 or newer (``--qemu`` names it): older ones show the
program the host's /proc/cpuinfo, with which ONNX Runtime crashes as it is imported.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Debian 13, as Raspberry Pi OS since October 2025: its Python, and its C library of 2.41, which takes all of these.
RELEASE, PYTHON = "trixie", "3.13"
PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux2014_aarch64",
)

_MIRROR = "http://deb.debian.org/debian"


def install(wheel: str, folder: Path) -> None:
    """Install a wheel with its extra for devices without a screen, and all that it requires, as for the device."""
    line = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(folder)]
    line += [
        "--only-binary=:all:",
        "--no-warn-conflicts",
        "--python-version",
        PYTHON,
        "--implementation",
        "cp",
        "--no-compile",
    ]
    for platform in PLATFORMS:
        line += ["--platform", platform]
    subprocess.run([*line, f"{wheel}[runtime-headless]"], check=True)


def system(folder: Path) -> Path:
    """Lay out Debian's arm64 Python and the libraries that it and the wheels need, and give its root.

    The packages are only unpacked: what they would run as they are installed, this machine cannot start.
    """
    root = folder / "root"
    if root.exists():
        return root
    first = folder / "first"
    include = "--include=python3,libstdc++6,libgomp1,zlib1g"
    with (folder / "debootstrap.log").open("w") as log:
        subprocess.run(
            [
                "debootstrap",
                "--arch=arm64",
                "--foreign",
                "--variant=minbase",
                include,
                RELEASE,
                str(first),
                _MIRROR,
            ],
            check=True,
            stdout=log,
        )
    making = folder / "root.part"
    for package in sorted((first / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(making)], check=True)
    return making.rename(root)


def emulated(qemu: str, cpu: str, root: Path, site: Path, *arguments: str) -> int:
    """Run the arm64 Python and give its status."""
    env = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(site), "NO_COLOR": "1"}
    python = root / "usr" / "bin" / f"python{PYTHON}"
    line = [qemu, "-cpu", cpu, "-L", str(root), str(python), *arguments]
    return subprocess.run(line, env={"PATH": os.environ["PATH"], **env}, check=False).returncode


def main() -> None:
    """Install, list, and verify where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--wheel", default="vit-edge", help="a wheel of vit-edge, or a requirement")
    parser.add_argument("--verify", type=Path, metavar="MODEL")
    parser.add_argument("--qemu", default="qemu-aarch64-static")
    parser.add_argument("--cpu", default="cortex-a76", help="the Raspberry Pi 5's; cortex-a72 is the 4's")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    site = options.work / "site"
    install(options.wheel, site)
    for about in sorted(site.glob("*.dist-info")):
        tags = [line[5:] for line in (about / "WHEEL").read_text().splitlines() if line.startswith("Tag: ")]
        print(f"{about.name.removesuffix('.dist-info'):<40} {tags[0]}")
    megabytes = sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) / 1e6
    print(f"{megabytes:.0f} MB", flush=True)
    if options.verify is not None:
        root = system(options.work)
        start = time.monotonic()
        status = emulated(
            options.qemu, options.cpu, root, site, "-m", "vit_edge", "verify", str(options.verify.resolve())
        )
        print(f"took {time.monotonic() - start:.0f} s under {options.qemu} as {options.cpu}")
        sys.exit(status)


if __name__ == "__main__":
    main()
