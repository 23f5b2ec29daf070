"""The folder for what this device can compute again: by each system's custom, or where an environment variable says."""

import os
import sys
from pathlib import Path

CACHE_VARIABLE = "VIT_EDGE_CACHE"
"""Names another folder for what can be computed again."""

# The variable that moves all caches (XDG Base Directory on Linux), and where they are without it.
_CUSTOMS = {
    "darwin": (None, "~/Library/Caches", ("vit-edge",)),
    "win32": ("LOCALAPPDATA", "~/AppData/Local", ("vit-edge", "Cache")),
}
_ELSEWHERE = ("XDG_CACHE_HOME", "~/.cache", ("vit-edge",))


def cache_folder() -> Path | None:
    """Give the folder, which may not exist yet; None for a user without a home, as in some containers."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    variable, place, parts = _CUSTOMS.get(sys.platform, _ELSEWHERE)
    moved = Path(os.environ.get(variable) or "") if variable else Path()
    try:
        # The XDG specification has a relative path passed over.
        root = moved if moved.is_absolute() else Path(place).expanduser()
    except RuntimeError:
        return None
    return root.joinpath(*parts)


def place_of(seal: str, kind: str, ending: str = "") -> Path | None:
    """Give where something of a model file is kept, by the file's seal; None where there is no cache folder.

    Args:
        seal: The digest that `check_seal` gives.
        kind: What is kept, the name of its folder.
        ending: Of the place's own name.
    """
    folder = cache_folder()
    # Half of the digest tells files apart as well, and keeps paths short.
    return None if folder is None else folder / kind / f"{seal[:32]}{ending}"
