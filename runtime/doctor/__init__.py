"""Examines a device: what is installed, what works, what is missing, and how to mend it.

It needs the standard library alone, so that it can say that all the rest is absent or broken. What may crash or hang
(loading a wheel, starting a provider, opening a window) is tried in a process of its own.
"""

from .examine import examine
from .finding import Finding, Severity

__all__ = ["Finding", "Severity", "examine"]
