"""Loads what the commands of the workshop are given, with the labels and preprocessing that belong to it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..export import Source
    from ..export.network import Network
    from ..runtime.labels import Labels
    from ..runtime.preprocess import Preprocessing


def given(labels: Path | None, preprocess: str | None) -> "tuple[Labels | None, Preprocessing | None]":
    """Read the values of ``--labels`` and ``--preprocess``.

    Raises:
        OptionError: A value is not usable.
    """
    from ..runtime.errors import ModelError
    from ..runtime.labels import Labels
    from ..runtime.preprocess import Preprocessing

    try:
        return (
            None if labels is None else Labels.read(labels),
            None if preprocess is None else Preprocessing.parse(preprocess),
        )
    except ModelError as error:
        raise OptionError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Opened:
    """What an export begins with, whatever it was made from."""

    network: "Network"
    labels: "Labels"
    preprocessing: "Preprocessing"
    source: "Source"


def open_network(
    text: str,
    *,
    labels: "Labels | None",
    preprocessing: "Preprocessing | None",
    heads: int | None,
    image_size: int | None,
) -> Opened:
    """Open a checkpoint, or a float ONNX file that was made elsewhere.

    Raises:
        OptionError: Labels or preprocessing are missing, or an option does not go with what was given.
        CheckpointError: It cannot be read.
    """
    from ..checkpoint import load_checkpoint
    from ..export import Source
    from ..export.network import OnnxNetwork, TorchNetwork

    if Path(text).suffix.lower() == ".onnx":
        if heads is not None or image_size is not None:
            raise OptionError(f"--heads and --image-size are for checkpoints; {text} is a finished graph")
        network = OnnxNetwork(Path(text))
        height = network.size[0] if network.size else None
        _require(text, labels, preprocessing, height)
        assert labels is not None
        assert preprocessing is not None
        return Opened(network, labels, preprocessing, Source(Path(text).name, network.sha256, {}))
    loaded = load_checkpoint(
        text, labels=labels, preprocessing=preprocessing, heads=heads, image_size=image_size
    )
    known_labels, known_preprocessing = complete(loaded)
    source = Source(Path(text).name, loaded.sha256, loaded.config.to_dict())
    return Opened(TorchNetwork(loaded.model), known_labels, known_preprocessing, source)


def complete(checkpoint: "Checkpoint") -> "tuple[Labels, Preprocessing]":
    """Give a checkpoint's labels and preprocessing.

    Raises:
        OptionError: It has none and none was given: there is no default, since a wrong one costs the answers.
    """
    _require(checkpoint.source, checkpoint.labels, checkpoint.preprocessing, checkpoint.config.image_size[0])
    assert checkpoint.labels is not None
    assert checkpoint.preprocessing is not None
    return checkpoint.labels, checkpoint.preprocessing


def _require(
    name: str, labels: "Labels | None", preprocessing: "Preprocessing | None", size: int | None
) -> None:
    missing = []
    if labels is None:
        missing.append(("labels", "--labels FILE (one a line, in the order of the outputs)"))
    if preprocessing is None:
        missing.append(
            (
                "preprocessing",
                f"--preprocess resize=...,crop={'...' if size is None else size},interpolation=...,mean=...,std=... "
                "(as the network was trained)",
            )
        )
    if missing:
        what, how = (" and ".join(parts) for parts in zip(*missing, strict=True))
        raise OptionError(f"{name} does not tell its {what}; give {how}")
