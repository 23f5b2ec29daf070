"""Runs the steps of docs/Containerfile in bare folders, without a container engine, and measures the image's size.

As root, with ``debootstrap`` installed and a wheel in dist/: ``python benchmarks/container.py WORK [ARGUMENTS]``. WORK
keeps the base and gets the stages; ARGUMENTS are for the image's command, its CMD unless given. The base is Debian's
smallest system without documentation and translations, as the images called slim are.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What the images called slim leave out (debuerreotype's .slimify-excludes).
_SLIM = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/groff")

_MIRROR = "http://deb.debian.org/debian"


@dataclass
class Stage:
    """A stage of a Containerfile: a folder with a system in it, and what its programs are started with."""

    folder: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    user: str = "root"
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def run(self, line: list[str], extra: Mapping[str, str] | None = None, user: str | None = None) -> int:
        """Run a program in it and give its status."""
        # As an engine does: its own /proc, /dev and /sys, which go with the last process that sees them.
        inside = shlex.join(["chroot", f"--userspec={user or self.user}", str(self.folder), "env", "-i"])
        given = shlex.join(f"{key}={value}" for key, value in {**self.environment, **(extra or {})}.items())
        root = shlex.quote(str(self.folder))
        script = (
            f"mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && mount --rbind /sys {root}/sys && "
            f"exec {inside} {given} {shlex.join(line)}"
        )
        return subprocess.run(["unshare", "--mount", "sh", "-c", script], check=False).returncode


def build(containerfile: Path, context: Path, work: Path) -> Stage:
    """Run the steps of a Containerfile and give its last stage."""
    stages: dict[str, Stage] = {}
    stage = None
    for keyword, rest in instructions(containerfile.read_text()):
        print(f"== {keyword} {rest}", file=sys.stderr, flush=True)
        if keyword == "FROM":
            image, _, name = rest.partition(" AS ")
            stage = stages[name or str(len(stages))] = Stage(work / (name or str(len(stages))))
            base(image, work, stage.folder)
            continue
        assert stage is not None, "the first instruction has to be FROM"
        if keyword == "RUN":
            if status := stage.run(["sh", "-c", rest], network(stage.folder), "root"):
                sys.exit(f"{rest} ended with status {status}")
        elif keyword == "COPY":
            *sources, target = shlex.split(rest)
            root = context
            if sources[0].startswith("--from="):
                root = stages[sources.pop(0).removeprefix("--from=")].folder
            copy(root, sources, stage.folder, target)
        elif keyword == "ENV":
            stage.environment |= dict([rest.split("=", 1)])
        elif keyword == "USER":
            stage.user = rest
        elif keyword in ("ENTRYPOINT", "CMD"):
            setattr(stage, {"ENTRYPOINT": "entry", "CMD": "command"}[keyword], json.loads(rest))
        else:
            sys.exit(f"this script knows no {keyword}")
    assert stage is not None
    return stage


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Give keyword and rest of each line that is no comment."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            keyword, _, rest = line.partition(" ")
            yield keyword, rest.strip()


def base(image: str, work: Path, folder: Path) -> None:
    """Lay out what an image debian:RELEASE-slim holds."""
    found = re.fullmatch(r"debian:(\w+)-slim", image)
    assert found is not None, f"expected debian:RELEASE-slim, got {image}"
    kept = work / f"base-{found[1]}"
    if not kept.exists():
        making = kept.with_suffix(".part")
        log = (work / "debootstrap.log").open("w")
        subprocess.run(
            ["debootstrap", "--variant=minbase", found[1], str(making), _MIRROR], check=True, stdout=log
        )
        for part in _SLIM:
            shutil.rmtree(making / part, ignore_errors=True)
        for part in ("var/lib/apt/lists", "var/cache/apt/archives"):
            shutil.rmtree(making / part)
            (making / part / "partial").mkdir(parents=True)
        # dpkg leaves out what later packages bring of the same.
        excluded = "".join(f"path-exclude=/{part}/*\n" for part in _SLIM)
        (making / "etc/dpkg/dpkg.cfg.d/slim").write_text(excluded)
        making.rename(kept)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", str(kept), str(folder)], check=True)


def network(folder: Path) -> dict[str, str]:
    """Let a build step reach what this machine reaches, as an engine does: names, certificates and pip's index."""
    shutil.copy("/etc/resolv.conf", folder / "etc/resolv.conf")
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        (folder / "tmp/certificates.crt").write_bytes(certificates.read_bytes())
    passed = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    return passed | {"PIP_CERT": "/tmp/certificates.crt", "DEBIAN_FRONTEND": "noninteractive"}


def copy(root: Path, sources: list[str], folder: Path, target: str) -> None:
    """Copy as COPY does: files into a folder that ends in a slash, the contents of a folder otherwise."""
    there = folder / target.lstrip("/")
    for pattern in sources:
        found = sorted(root.glob(pattern.lstrip("/")))
        if not found:
            sys.exit(f"there is no {pattern}")
        there.mkdir(parents=True, exist_ok=True)
        for source in found:
            if source.is_dir():
                subprocess.run(["cp", "-a", f"{source}/.", str(there)], check=True)
            else:
                shutil.copy(source, there)


def megabytes(folder: Path) -> int:
    """Give what a folder takes on the disk, as ``du`` counts it."""
    done = subprocess.run(["du", "-sm", str(folder)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def main() -> None:
    """Build the image, say its size, and run its command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--file", type=Path, action="append", default=[], help="put into the image's root")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    stage = build(ROOT / "docs" / "Containerfile", ROOT, options.work)
    (stage.folder / "tmp/certificates.crt").unlink(missing_ok=True)
    (kept,) = options.work.glob("base-*")
    for file in options.file:
        shutil.copy(file, stage.folder)
    print(f"base {megabytes(kept)} MB, image {megabytes(stage.folder)} MB", flush=True)
    sys.exit(stage.run([*stage.entry, *(options.arguments or stage.command)]))


if __name__ == "__main__":
    main()
