"""``vit-edge doctor``: what is installed on this device, what works, what does not, and how to mend it."""

import json
import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError
from ..runtime.doctor import Finding, Severity, examine
from . import options as shared
from .progress import working

_TITLES = {
    "system": "System",
    "processor": "Processor",
    "onnxruntime": "ONNX Runtime",
    "opencv": "OpenCV",
    "packages": "Packages",
    "screen": "Screen",
    "camera": "Cameras",
    "model": "Model",
}
_COLUMN = max(map(len, _TITLES.values())) + 2

_SIGNS: Mapping[Severity, str] = {"ok": "✓", "note": "!", "problem": "✗"}
_PLAIN_SIGNS: Mapping[Severity, str] = {"ok": "+", "note": "!", "problem": "X"}
_COLOURS: Mapping[Severity, str] = {"ok": "green", "note": "yellow", "problem": "red"}

# Wider lines are hard to read, narrower ones leave no room beside the titles.
_WIDTHS = (60, 110)

_GLUE = "\x00"

# Operators below these take next to no time.
_OPERATORS = 6


def doctor(
    model: Annotated[
        Path | None, typer.Argument(help="A file made by `vit-edge export`, to be profiled here.")
    ] = None,
    provider: Annotated[str, typer.Option(help="The execution provider to profile it on.")] = "auto",
    provider_option: shared.ProviderOptions = None,
    as_json: shared.Json = False,
) -> None:
    """Examine this device: what works, what does not, and how to mend it.

    The exit status is 0 without a problem and 1 with one; notes change nothing.
    """
    if model is None and provider != "auto":
        raise OptionError("--provider says where to profile a model; name the MODEL too, or leave it out")
    if model is None and provider_option:
        raise OptionError(
            "--provider-option is for the provider that a model is profiled on; name the MODEL too, or leave it out"
        )
    own = shared.provider_options(provider_option)
    if own and provider == "auto":
        raise OptionError(
            "--provider-option belongs to one provider; name it with --provider, or leave the option out"
        )
    findings: list[Finding] = []
    page = _Page()
    for finding in examine(model, provider=provider, provider_options=own, running=working):
        findings.append(finding)
        if not as_json:
            page.show(finding)
    counts = Counter(finding.severity for finding in findings)
    if as_json:
        severities: tuple[Severity, ...] = ("ok", "note", "problem")
        counted = {severity: counts[severity] for severity in severities}
        typer.echo(json.dumps({"counts": counted, "findings": [finding.to_dict() for finding in findings]}))
    else:
        page.end(counts)
    if counts["problem"]:
        raise typer.Exit(1)


class _Page:
    """Prints findings as they come, in groups, and a last line that counts them."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self._width = min(max(shutil.get_terminal_size().columns, _WIDTHS[0]), _WIDTHS[1])
        self._coloured = terminal and "NO_COLOR" not in os.environ
        self._signs = _SIGNS if _writable("".join(_SIGNS.values()) + "→") else _PLAIN_SIGNS
        self._area = ""

    def show(self, finding: Finding) -> None:
        """Print one finding, its cure below it."""
        title = _TITLES[finding.area] if finding.area != self._area else ""
        self._area = finding.area
        sign, colour = self._signs[finding.severity], _COLOURS[finding.severity]
        first, *rest = self._wrapped(finding.found)
        typer.echo(f"{title:<{_COLUMN}}{self._style(sign, colour)} {first}")
        self._indent(rest)
        if finding.cure:
            arrow = "→" if self._signs is _SIGNS else ">"
            first, *rest = self._wrapped(finding.cure)
            typer.echo(f"{'':<{_COLUMN}}{self._style(arrow, 'cyan')} {first}")
            self._indent(rest)
        if "operators" in finding.details:
            self._indent(_operators(finding.details["operators"]))

    def end(self, counts: Mapping[Severity, int]) -> None:
        """Print the last line."""
        problems, notes = counts["problem"], counts["note"]
        parts = [_count(problems, "problem"), _count(notes, "note"), f"{counts['ok']} in order"]
        typer.echo(f"\n{self._style(', '.join(parts), 'red' if problems else 'green')}")

    def _wrapped(self, text: str) -> list[str]:
        # A command that is broken over lines cannot be copied.
        whole = re.sub("`[^`]*`", lambda command: command[0].replace(" ", _GLUE), text)
        lines = textwrap.wrap(
            whole, self._width - _COLUMN - 2, break_long_words=False, break_on_hyphens=False
        )
        return [line.replace(_GLUE, " ") for line in lines]

    def _indent(self, lines: Sequence[str]) -> None:
        for line in lines:
            typer.echo(f"{'':<{_COLUMN + 2}}{line}")

    def _style(self, text: str, colour: str) -> str:
        return typer.style(text, fg=colour, bold=True) if self._coloured else text


def _operators(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out what took longest, and the rest in one row."""
    total = sum(row["ms"] for row in rows) or 1.0
    shown = [(row["operator"], row["provider"], row["nodes"], row["ms"]) for row in rows[:_OPERATORS]]
    if rest := rows[_OPERATORS:]:
        nodes, ms = (sum(row[key] for row in rest) for key in ("nodes", "ms"))
        shown.append((f"{len(rest)} others", "", nodes, ms))
    name_width = max(len(name) for name, *_ in shown)
    return [
        f"{name:<{name_width}}  {nodes:>4} nodes  {ms:8.2f} ms  {100 * ms / total:3.0f} %  "
        f"{provider.removesuffix('ExecutionProvider')}".rstrip()
        for name, provider, nodes, ms in shown
    ]


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _writable(text: str) -> bool:
    """Tell whether the terminal's encoding has these characters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
