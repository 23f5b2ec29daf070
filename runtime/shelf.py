"""What this device compiled of a model file, kept in its cache: used when it fits and is whole, else made anew.

Each provider of a file has a record, a JSON file, and a folder that it names. The record is written last and in one
move, so that a kill at any moment leaves what was there, or nothing that is trusted.
"""

import contextlib
import json
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime

from .cache import place_of
from .processor import processor
from .replacing import replacing

_KIND = "compiled"

# Of this layout; another one fits nothing.
_FORMAT = 1

# A folder that no record names is of a process that is at work on it, or was killed: after so long it was killed.
_ABANDONED_S = 86400.0

_BLOCK = 1 << 20


class Shelf(NamedTuple):
    """The place of what is compiled of one file for one provider.

    Attributes:
        folder: The file's own, that of all its providers.
        provider: The provider's short name.
        fits: What the compiled graph is tied to, beside the file: versions, processor, options.
    """

    folder: Path
    provider: str
    fits: Mapping[str, Any]

    def found(self) -> Path | None:
        """Give the folder with what was compiled, where it fits and every file in it is whole."""
        record = self._read()
        if record is None or record.get("fits") != self.fits:
            return None
        folder, files = self.folder / record["folder"], record.get("files")
        if not isinstance(files, dict) or not files:
            return None
        sound = all(checksum(folder / name) == noted for name, noted in files.items())
        return folder if sound else None

    def new_folder(self) -> Path | None:
        """Make an empty folder to compile into; None where the cache cannot be written to."""
        import tempfile  # most starts compile nothing, and are quicker without

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix=f"{self.provider}-", dir=self.folder))
        except OSError:
            return None

    def keep(self, folder: Path) -> bool:
        """Take what was compiled into a folder from `new_folder`; whatever was kept before goes."""
        before = self._read()
        try:
            files = {path.relative_to(folder).as_posix(): checksum(path) for path in files_in(folder)}
            if not files:
                self.drop(folder)
                return False
            record = {"folder": folder.name, "fits": dict(self.fits), "files": files}
            with replacing(self._record) as draft:
                draft.write_text(json.dumps(record, indent=1), encoding="utf-8")
        except OSError:
            self.drop(folder)
            return False
        if before is not None:
            self.drop(self.folder / before["folder"])
        self._tidy(folder.name)
        return True

    def drop(self, folder: Path) -> None:
        """Remove a folder that came to nothing."""
        _remove(folder)

    def forget(self) -> None:
        """Remove what was compiled."""
        record = self._read()
        with contextlib.suppress(OSError):
            self._record.unlink(missing_ok=True)
        if record is not None:
            self.drop(self.folder / record["folder"])

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.provider}.json"

    def _read(self) -> dict[str, Any] | None:
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        folder = record.get("folder") if isinstance(record, dict) else None
        # A damaged record must not lead out of the cache.
        named = (
            isinstance(folder, str) and folder.startswith(f"{self.provider}-") and folder == Path(folder).name
        )
        return record if named else None

    def _tidy(self, kept: str) -> None:
        """Remove older folders; one without a record may be another process's, at work."""
        for path in self.folder.glob(f"{self.provider}-*"):
            try:
                if path.name != kept and time.time() - path.stat().st_mtime > _ABANDONED_S:
                    _remove(path)
            except OSError:
                continue


def in_use(seal: str, provider: str) -> bool:
    """Tell whether something was compiled of a file, fitting or not; cheaper than to ask its shelf."""
    folder = place_of(seal, _KIND)
    return folder is not None and (folder / f"{provider}.json").exists()


def forget_compiled(seal: str) -> bool:
    """Remove all that was compiled of a file; whether there was something."""
    folder = place_of(seal, _KIND)
    if folder is None or not folder.exists():
        return False
    _remove(folder)
    return True


def shelf(seal: str, provider: str, options: Mapping[str, Any]) -> Shelf | None:
    """Give the place for a file and provider; None where this user has no cache folder.

    Args:
        seal: The file's seal, the digest that `check_seal` gives.
        provider: The provider's short name.
        options: Those that it is opened with, without folders.
    """
    folder = place_of(seal, _KIND)
    if folder is None:
        return None
    fits = {
        "format": _FORMAT,
        "onnxruntime": onnxruntime.__version__,
        "processor": processor(),
        "options": dict(options),
    }
    # As JSON gives it back: what is compared was read from a record.
    return Shelf(folder, provider, json.loads(json.dumps(fits)))


def files_in(folder: Path) -> list[Path]:
    """List what was compiled: Core ML's is a folder in which the graph and its weights lie in folders of their own."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def checksum(path: Path) -> str | None:
    """Give size and CRC-32: against damage, not against whoever can write to the cache anyway."""
    try:
        size, crc = 0, 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                size, crc = size + len(block), zlib.crc32(block, crc)
        return f"{size}:{crc:08x}"
    except OSError:
        return None


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
