"""Which installed wheels bring a module, and whether their files are as they were installed."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from .finding import Finding


@dataclass(frozen=True, slots=True)
class Wheel:
    """An installed wheel.

    Attributes:
        name: Its name on the package index.
        version: Its version.
        folder: Where it is installed.
        sizes: Its files relative to *folder* and their sizes in bytes, as its RECORD lists them.
    """

    name: str
    version: str
    folder: Path
    sizes: dict[str, int]

    @property
    def damaged(self) -> tuple[str, ...]:
        """Its files that are gone or have another size than when it was installed."""
        return tuple(sorted(file for file, size in self.sizes.items() if _size(self.folder / file) != size))

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def wheels(module: str, path: Sequence[str] | None = None) -> tuple[Wheel, ...]:
    """Find the wheels that bring a module, whatever they are called.

    Args:
        module: Its import name, ``cv2``.
        path: Where to look; ``sys.path`` unless given.
    """
    found: dict[tuple[str, Path], Wheel] = {}
    for distribution in distributions() if path is None else distributions(path=list(path)):
        record = distribution.read_text("RECORD") or ""
        # Most of an environment's wheels have nothing to do with it, and their records are long.
        if f"\n{module}/__init__.py," in f"\n{record}":
            wheel = _wheel(distribution, record, module)
            found.setdefault((wheel.name, wheel.folder), wheel)
    return tuple(found.values())


def wheel_findings(
    area: str, found: Sequence[Wheel], *, keep: Sequence[str], version: str | None
) -> Iterator[Finding]:
    """Say what is wrong with the wheels of one module: several of them, or a damaged one.

    Args:
        area: What the findings are about.
        found: The wheels, as `wheels` finds them.
        keep: Names of wheels, the one to keep first; what is not named is kept last.
        version: What the module says its version is; None where it does not load.
    """
    details = {
        "version": version,
        "wheels": [
            {"name": wheel.name, "version": wheel.version, "folder": str(wheel.folder)} for wheel in found
        ],
    }
    ident = f"{area}.wheels"
    folders = Counter(wheel.folder for wheel in found)
    mixed = [wheel for wheel in found if folders[wheel.folder] > 1]
    if mixed:
        yield _mix(ident, mixed, keep, details)
    elif len(found) > 1:
        first, *others = found
        yield Finding(
            ident,
            "note",
            f"{first} in {first.folder} hides {_list(f'{wheel} in {wheel.folder}' for wheel in others)}",
            f"Take away the one that you do not want: `pip uninstall {others[0].name}` with that folder's own Python.",
            details,
        )
    for wheel in found:
        damaged = wheel.damaged
        if damaged and wheel not in mixed:
            yield Finding(
                f"{area}.damaged",
                "problem",
                f"{len(damaged)} of {len(wheel.sizes)} files of {wheel} are gone or changed, as when another wheel of "
                f"the same module was removed ({damaged[0]})",
                f"Install it anew: {reinstall(wheel)}.",
                {"wheel": wheel.name, "files": list(damaged[:20])},
            )


def reinstall(wheel: Wheel) -> str:
    """Give the command that puts a wheel's own files back."""
    return f"`pip install --force-reinstall --no-deps {wheel.name}=={wheel.version}`"


def _mix(ident: str, mixed: Sequence[Wheel], keep: Sequence[str], details: Mapping[str, object]) -> Finding:
    shared = Counter(file for wheel in mixed for file in wheel.sizes)
    both = [file for file, count in shared.items() if count > 1]
    # The sizes on the disk tell whose files were written last.
    fitting = Counter(
        str(wheel)
        for wheel in mixed
        for file in both
        if file in wheel.sizes and _size(wheel.folder / file) == wheel.sizes[file]
    )
    last = fitting.most_common(1)[0][0] if fitting else "neither"
    rank = {name: place for place, name in enumerate(keep)}
    best = min(mixed, key=lambda wheel: rank.get(wheel.name, len(rank)))
    names = " ".join(wheel.name for wheel in mixed)
    return Finding(
        ident,
        "problem",
        f"{_list(map(str, mixed))} are installed over each other: {len(both)} files belong to "
        f"{'both' if len(mixed) == 2 else 'several'}, and what is there now is mostly that of {last}",
        f"Remove them all, then install the one that you need: "
        f"`pip uninstall -y {names}`, then `pip install {best.name}`.",
        {**details, "shared_files": len(both), "on_disk": last},
    )


def _wheel(distribution: Distribution, record: str, module: str) -> Wheel:
    sizes = {
        row[0]: int(row[2])
        for row in csv.reader(record.splitlines())
        # What Python compiled later is no part of the wheel; what lies outside the module no other wheel overwrites.
        if len(row) == 3
        and row[2].isdigit()
        and row[0].startswith(f"{module}/")
        and not row[0].endswith(".pyc")
    }
    name = distribution.metadata["Name"]
    return Wheel(name, distribution.version, Path(str(distribution.locate_file(""))).resolve(), sizes)


def _list(names: Iterable[str]) -> str:
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
