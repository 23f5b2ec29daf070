"""Writes a model file: metadata and seal into the graph, the whole onto the disk at once."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import onnx

from ..errors import ExportError, OptionError
from ..runtime.capsule import KEY as CAPSULE
from ..runtime.metadata import Metadata
from ..runtime.seal import BLANK, KEY, seal
from .graph import copy
from .limits import MAX_BYTES


def write_model(
    model: onnx.ModelProto,
    metadata: Metadata,
    path: Path,
    *,
    capsule: str | None = None,
    force: bool = False,
) -> int:
    """Write a sealed model file, atomically: a kill at any moment leaves the old file or none.

    Args:
        model: The finished graph.
        metadata: What the file says of itself.
        path: Where to write.
        capsule: The text of its capsule; None leaves it out.
        force: Whether an existing file may be replaced.

    Returns:
        The size of the file in bytes.

    Raises:
        ExportError: The file would be too large, or cannot be written.
        OptionError: The file exists and *force* is not given.
    """
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(
            f"the model takes {model.ByteSize() / 2**30:.1f} GiB, and one ONNX file holds less than 2 GiB; "
            "export a smaller model or another --precision"
        )
    sealed = copy(model)
    sealed.producer_name = "vit-edge"
    del sealed.metadata_props[:]
    # The seal goes last: its place is searched from the end of the file.
    entries = metadata.to_properties() | ({} if capsule is None else {CAPSULE: capsule})
    for key, value in (*entries.items(), (KEY, BLANK.decode())):
        sealed.metadata_props.add(key=key, value=value)
    data = seal(sealed.SerializeToString())
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            unfinished = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                # Temporary files are private; this one is to have a new file's ordinary permissions.
                unfinished.chmod(0o666 & ~_umask())
                if force:
                    unfinished.replace(path)
                else:
                    _place_new(unfinished, path)
            except BaseException:
                with suppress(FileNotFoundError):
                    unfinished.unlink()
                raise
    except OSError as error:
        raise ExportError(f"cannot write {path} ({error.strerror}); nothing was changed") from error
    return len(data)


def _place_new(unfinished: Path, path: Path) -> None:
    """Give the file its name unless another has taken it meanwhile: a link never replaces, a rename would."""
    try:
        path.hardlink_to(unfinished)
    except FileExistsError:
        raise OptionError(f"{path} exists; give --force to replace it, or another name with -o") from None
    except OSError:
        # A file system without hard links (FAT on a memory card).
        if path.exists():
            raise OptionError(f"{path} exists; give --force to replace it, or another name with -o") from None
        unfinished.replace(path)
        return
    unfinished.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
