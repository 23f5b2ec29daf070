"""What an examination finds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["ok", "note", "problem"]
"""``ok``: as it should be. ``note``: works, and a user should know. ``problem``: something that was installed or
asked for does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        id: Its name, which stays: what it is about, a dot, and what of that (``opencv.wheels``).
        severity: How bad it is.
        found: What was found, for people.
        cure: What to do, one sentence; every note and problem has one.
        details: What was found, for programs.
    """

    id: str
    severity: Severity
    found: str
    cure: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def area(self) -> str:
        """What it is about: the part of `id` before the dot."""
        return self.id.partition(".")[0]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "id": self.id,
            "severity": self.severity,
            "found": self.found,
            "cure": self.cure,
            "details": dict(self.details),
        }


def sentence(text: str) -> str:
    """Make a sentence of an error's second half, the cure."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
