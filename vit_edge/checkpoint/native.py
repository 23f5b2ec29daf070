"""vit-edge's own checkpoint: one safetensors file with weights, sizes, labels and preprocessing.

Its metadata is text under these keys; whatever else is there is the writer's own and is kept.

| key | value |
|---|---|
| ``vit_edge.schema`` | ``1`` |
| ``vit_edge.config`` | JSON object: the fields of `ViTConfig` |
| ``vit_edge.labels`` | JSON list in the order of the outputs: ``{"name": …, "id": … or null}`` |
| ``vit_edge.preprocess`` | JSON object: the fields of `Preprocessing` |
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from ..errors import CheckpointError, VitEdgeError
from ..models import ViT, ViTConfig
from ..runtime.labels import Label, Labels
from ..runtime.preprocess import Preprocessing
from ..runtime.replacing import replacing

_SCHEMA = 1
_PREFIX = "vit_edge."
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class NativeMetadata:
    """What a native checkpoint says beside its weights."""

    config: ViTConfig
    labels: Labels
    preprocessing: Preprocessing
    extra: Mapping[str, str]


def save_checkpoint(
    path: str | Path,
    model: ViT,
    *,
    labels: Labels,
    preprocessing: Preprocessing,
    extra: Mapping[str, str] = _NONE,
) -> None:
    """Write a checkpoint; a kill at any moment leaves the old file, or none.

    Args:
        path: The file to write, by custom with the suffix ``.safetensors``.
        model: The network; its weights are written as float32.
        labels: One for each output.
        preprocessing: What made the images that *model* was trained on.
        extra: More text to keep in the file, under keys that do not start with ``vit_edge.``.

    Raises:
        CheckpointError: Labels, preprocessing and model do not go together, or the file cannot be written.
    """
    path = Path(path)
    check_fit(model.config, labels, preprocessing)
    if reserved := [key for key in extra if key.startswith(_PREFIX) or key == "format"]:
        raise CheckpointError(f"{path}: the key {reserved[0]} is reserved; choose another name for it")
    metadata = {
        **extra,
        "format": "pt",
        f"{_PREFIX}schema": str(_SCHEMA),
        f"{_PREFIX}config": json.dumps(model.config.to_dict()),
        f"{_PREFIX}labels": json.dumps([{"name": label.name, "id": label.id} for label in labels.items]),
        f"{_PREFIX}preprocess": json.dumps(preprocessing.to_dict()),
    }
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
    try:
        with replacing(path) as unfinished:
            save_file(tensors, unfinished, metadata)
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be written: {error}; check the folder and the disk") from error


def read_native(metadata: Mapping[str, str]) -> NativeMetadata | None:
    """Read the metadata of a native checkpoint; None where the file is another program's.

    Raises:
        CheckpointError: It is a native checkpoint, but of a newer schema or damaged.
    """
    schema = metadata.get(f"{_PREFIX}schema")
    if schema is None:
        return None
    if schema != str(_SCHEMA):
        raise CheckpointError(f"expected a checkpoint of schema {_SCHEMA}, got {schema!r}; update vit-edge")
    try:
        return NativeMetadata(
            config=ViTConfig.from_dict(_json(metadata, "config")),
            labels=Labels(tuple(Label(item["name"], item["id"]) for item in _json(metadata, "labels"))),
            preprocessing=Preprocessing.from_dict(_json(metadata, "preprocess")),
            extra={
                key: value
                for key, value in metadata.items()
                if not key.startswith(_PREFIX) and key != "format"
            },
        )
    except (VitEdgeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"its metadata is damaged ({error}); save it again") from error


def check_fit(config: ViTConfig, labels: Labels | None, preprocessing: Preprocessing | None) -> None:
    """Check that labels and preprocessing belong to a network of these sizes.

    Raises:
        CheckpointError: Another number of labels than of classes, or another crop than the image's size.
    """
    if labels is not None and len(labels) != config.classes:
        raise CheckpointError(
            f"expected {config.classes} labels, one for each output, got {len(labels)}; "
            "give the labels that the model was trained with"
        )
    if preprocessing is not None and preprocessing.crop != config.image_size:
        (height, width), (rows, columns) = preprocessing.crop, config.image_size
        raise CheckpointError(
            f"the preprocessing crops to {height}x{width}, but the network takes {rows}x{columns}; "
            "give the preprocessing of that size with --preprocess"
        )


def _json(metadata: Mapping[str, str], key: str) -> Any:
    return json.loads(metadata[f"{_PREFIX}{key}"])
