"""Measurements that outlive the process: a search that was cut off goes on where it was."""

import hashlib
import json
from pathlib import Path

from ..runtime.cache import cache_folder


class Journal:
    """A file of measurements, one JSON object a line, each written as soon as it is known.

    What cannot be read or written is measured anew: the journal saves time, and nothing depends on it.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[str, float] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path else []
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            # A kill in the middle of a line leaves half of it.
            try:
                entry = json.loads(line)
                self._known[str(entry["key"])] = float(entry["value"])
            except (ValueError, TypeError, KeyError):
                continue

    def get(self, key: str) -> float | None:
        """Give what was measured under a key, None where nothing was."""
        return self._known.get(key)

    def put(self, key: str, value: float) -> None:
        """Keep a measurement."""
        self._known[key] = value
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # The line break goes first, so that half a line of a killed process spoils no other.
                file.write("\n" + json.dumps({"key": key, "value": value}))
        except OSError:
            pass


def journal_of(*parts: bytes) -> Journal:
    """Open the journal of a search: that of its graphs, images and versions, whatever they are called."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(len(part).to_bytes(8, "big"))
        sha256.update(part)
    folder = cache_folder()
    return Journal(folder and folder / "search" / f"{sha256.hexdigest()[:32]}.jsonl")
