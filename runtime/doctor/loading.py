"""Whether a module is installed and loads, else why not, and which other packages its wheel lacks."""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from .child import Outcome, attempt
from .finding import Finding
from .wheels import Wheel, reinstall, wheel_findings

_LIBRARY = re.compile(r"([\w.+-]+\.so[.\d]*): cannot open shared object")

# What NumPy and the modules built with another NumPy say (numpy's "troubleshooting import errors").
_NUMPY = re.compile(r"numpy\.core\.multiarray|_ARRAY_API|compiled using NumPy|numpy\.dtype size changed")


def loading(
    module: str,
    area: str,
    title: str,
    found: Sequence[Wheel],
    *,
    keep: Sequence[str],
    without: str,
    more: Callable[[Mapping[str, Any]], str] = lambda values: "",
) -> Generator[Finding, None, Mapping[str, Any] | None]:
    """Examine a module: its wheels, and whether it loads.

    Args:
        module: Its import name, ``cv2``.
        area: What the findings are about; ``try_`` and the area is the trial that loads it.
        title: Its name for people.
        found: The wheels that bring it.
        keep: Names of wheels, of two over each other the one to keep first.
        without: What a device cannot do without it.
        more: Gives, of what the trial told, what is said of it beside its version.

    Yields:
        What is found.

    Returns:
        What the trial told; None where the module does not load.
    """
    outcome = attempt(f"try_{area}")
    # Of a mix that was half removed a wheel is left without its files.
    if outcome.missing == module and not found:
        yield Finding(
            f"{area}.load",
            "problem",
            f"{title} is not installed: {without}",
            "`pip install 'vit-edge[runtime]'`, or `'vit-edge[runtime-headless]'` on a device without a screen.",
        )
        return None
    values = outcome.values
    broken = list(wheel_findings(area, found, keep=keep, version=values.get("version")))
    yield from broken
    if outcome.failure:
        yield load_failure(area, title, found, outcome)
        return None
    if not any(finding.severity == "problem" for finding in broken):
        origin = f"wheel {found[0].name}" if found else f"no wheel, from {Path(values['file']).parent}"
        yield Finding(
            f"{area}.load",
            "ok",
            f"{title} {values['version']} ({origin}){more(values)}",
            details={**values, "wheels": [str(wheel) for wheel in found]},
        )
    for wheel in found:
        yield from unmet(wheel)
    return values


def load_failure(area: str, title: str, found: Sequence[Wheel], outcome: Outcome) -> Finding:
    """Say why a module that is installed does not load.

    Args:
        area: What the finding is about.
        title: The module's name for people.
        found: The wheels that bring it.
        outcome: What came of loading it.
    """
    name = found[0].name if found else title
    library = _LIBRARY.search(outcome.failure)
    if outcome.missing:
        cure = f"Install it anew with all that it wants: `pip install --force-reinstall {name}`."
    elif library and area == "opencv" and "headless" not in name:
        cure = (
            f"Without a screen, `pip uninstall -y {name}`, then `pip install opencv-python-headless`; with one, "
            f"install the system's package that has {library[1]} (`apt install libgl1 libglib2.0-0`)."
        )
    elif library:
        cure = f"Install the system's package that has {library[1]}, or name its folder in LD_LIBRARY_PATH."
    elif _NUMPY.search(outcome.failure + outcome.log):
        cure = f"It was built for another NumPy: `pip install --upgrade {name} numpy`."
    elif "GLIBC" in outcome.failure:
        cure = f"This system is older than the wheel: update the system, or install an older {name}."
    elif "SIGILL" in outcome.failure:
        cure = f"The wheel wants instructions that this processor lacks: take an older {name} or the system's package."
    else:
        cure = f"Install it anew: {reinstall(found[0])}." if found else f"Install the wheel of {title} anew."
    return Finding(
        f"{area}.load",
        "problem",
        f"{title} ({', '.join(map(str, found)) or 'of the system'}) does not load: {outcome.failure}",
        cure,
        {"wheels": [str(wheel) for wheel in found], "reason": outcome.failure, "log": outcome.log[-4000:]},
    )


def unmet(wheel: Wheel) -> Iterator[Finding]:
    """Say which packages that a wheel requires are absent or have a version that it does not take."""
    try:
        # Many environments have it, and onnxruntime brings it; without it, loading the module shows the worst.
        requirements = import_module("packaging.requirements")
    except ModuleNotFoundError:
        return
    for text in distribution(wheel.name).requires or ():
        wanted = requirements.Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            present = version(wanted.name)
        except PackageNotFoundError:
            there = "is not installed"
        else:
            if wanted.specifier.contains(present, prereleases=True):
                continue
            there = f"{present} is installed"
        plain = f"{wanted.name}{wanted.specifier}"
        yield Finding(
            f"packages.{wanted.name}",
            "note",
            f"{wheel} wants {plain}, and {wanted.name} {there}",
            f"`pip install '{plain}'`.",
            {"wheel": str(wheel), "wants": plain},
        )
