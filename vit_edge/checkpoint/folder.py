"""The files that timm and transformers put into a folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""The names under which both save weights, the better first."""

INDEX = ".index.json"
"""What follows the name of weights that transformers spread over several files."""


def weights_in(folder: Path) -> tuple[Path, ...]:
    """Give the files of weights in *folder*, in order.

    Raises:
        CheckpointError: There are none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return (folder / name,)
        if (folder / f"{name}{INDEX}").is_file():
            return tuple(folder / shard for shard in shards(folder / f"{name}{INDEX}"))
    raise CheckpointError(f"the folder holds no weights; expected {' or '.join(WEIGHTS)} in it")


def shards(index: Path) -> tuple[str, ...]:
    """Give the names of the files that weights are spread over.

    Raises:
        CheckpointError: The index is damaged, or names a file outside its folder.
    """
    places = read_json(index).get("weight_map")
    if not isinstance(places, Mapping) or not places:
        raise CheckpointError(f"{index.name} is damaged; download or save it again")
    names = sorted({str(name) for name in places.values()})
    if any(Path(name).name != name for name in names):
        raise CheckpointError(
            f"{index.name} points outside its folder, which is refused; save the model again"
        )
    return tuple(names)


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: It cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} is damaged; download or save it again") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"expected {path.name} to hold a JSON object, got a {type(content).__name__}")
    return content
