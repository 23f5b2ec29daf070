"""Any checkpoint that is understood, as a network ready to run."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, VitEdgeError
from ..models import ViT, ViTConfig, resample_positions
from ..runtime.labels import Label, Labels
from ..runtime.preprocess import Preprocessing
from .description import Description
from .infer import infer_config
from .locate import locate
from .names import to_timm_names
from .native import check_fit, read_native
from .read import read_weights


@dataclass(frozen=True)
class Checkpoint:
    """A network with what belongs to it.

    Attributes:
        model: The network, on the processor, in evaluation mode.
        labels: Its classes in the order of the outputs; None where nothing told them.
        preprocessing: What an image must go through first; None where nothing told it.
        source: What it was loaded from, as it was given.
        sha256: Checksum of the file of weights (of all of them, joined in order, where there are several).
        extra: Other text that a native checkpoint carries.
    """

    model: ViT
    labels: Labels | None
    preprocessing: Preprocessing | None
    source: str
    sha256: str
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> ViTConfig:
        """The network's sizes."""
        return self.model.config


def load_checkpoint(
    source: str | Path,
    *,
    labels: Labels | None = None,
    preprocessing: Preprocessing | None = None,
    heads: int | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Checkpoint:
    """Load a ViT with its labels and preprocessing.

    Args:
        source: A file (.safetensors, .pth, .npz), a folder that timm or transformers saved, ``timm:NAME``, or
            ``hf:OWNER/NAME``. Files are read without running code from them, and every weight must fit.
        labels: The classes, where the checkpoint has none.
        preprocessing: What an image must go through, where the checkpoint does not say.
        heads: Attention heads, where the checkpoint does not say and its shape is no named size's.
        image_size: Side, or (height, width), in pixels to run at; the positions are resampled for it. The
            checkpoint's own preprocessing belongs to its own size and is then left out.

    Returns:
        The checkpoint; labels and preprocessing are None where neither it nor the caller tells them.

    Raises:
        CheckpointError: It cannot be read, is no plain ViT, contradicts itself or what was given.
    """
    try:
        located = locate(source)
        weights = read_weights(located.weights)
        native = read_native(weights.metadata)
        if native is not None:
            found = Description(native.labels, native.preprocessing)
            tensors, config = weights.tensors, native.config
            _agreed_heads(heads, config.heads)
        else:
            found = located.description or Description()
            named = to_timm_names(weights.tensors)
            tensors = named.tensors
            config = infer_config(
                tensors,
                heads=_agreed_heads(heads, named.heads or found.heads),
                norm_eps=named.norm_eps if found.norm_eps is None else found.norm_eps,
                image_size=found.image_size,
            )
            _check_sizes(config, found)
        model = _build(config, tensors)
        if image_size is not None:
            size = (image_size, image_size) if isinstance(image_size, int) else image_size
            if size != config.image_size:
                model = _resized(model, size)
                found = replace(found, preprocessing=None, problem=None)
        chosen_labels = _agreed_labels(found.labels, labels)
        chosen_preprocessing = _agreed_preprocessing(found, preprocessing)
        check_fit(model.config, chosen_labels, chosen_preprocessing)
    except VitEdgeError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{source}: cannot be read ({error.strerror}); check the path") from error
    return Checkpoint(
        model=model.eval(),
        labels=chosen_labels,
        preprocessing=chosen_preprocessing,
        source=str(source),
        sha256=weights.sha256,
        extra=native.extra if native is not None else {},
    )


def _build(config: ViTConfig, tensors: Mapping[str, Tensor]) -> ViT:
    with torch.device("meta"):  # shapes alone; the weights come next
        model = ViT(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    problems = [f"lacks {name}" for name in expected if name not in tensors]
    problems += [f"holds {name}, unknown here" for name in tensors if name not in expected]
    problems += [
        f"holds {name} of shape {tuple(tensors[name].shape)} where {shape} belongs"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"its weights are not a plain ViT's: it {', '.join(problems[:3])}{more}")
    model.load_state_dict({name: _float32(name, tensor) for name, tensor in tensors.items()}, assign=True)
    return model


def _float32(name: str, tensor: Tensor) -> Tensor:
    """Copy to memory of its own, so that a file changed later changes nothing here."""
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise CheckpointError(
            f"expected {name} as floating-point numbers, got {tensor.dtype}; save it as float32"
        )
    copy = torch.empty(tensor.shape, dtype=torch.float32).copy_(tensor.detach())
    if not torch.isfinite(copy).all():
        raise CheckpointError(
            f"{name} holds infinite values or NaN; take an earlier checkpoint of the training"
        )
    return copy


def _resized(model: ViT, image_size: tuple[int, int]) -> ViT:
    config = replace(model.config, image_size=image_size)
    tensors = dict(model.state_dict())
    tensors["pos_embed"] = resample_positions(tensors["pos_embed"], model.config.grid, config.grid)
    return _build(config, tensors)


def _agreed_heads(given: int | None, found: int | None) -> int | None:
    if given is not None and found is not None and given != found:
        raise CheckpointError(f"has {found} attention heads, but {given} were given; leave out --heads")
    return found if given is None else given


def _check_sizes(config: ViTConfig, found: Description) -> None:
    for name, said in found.sizes.items():
        if said != (held := getattr(config, name)):
            raise CheckpointError(
                f"its config says {name} {said}, but its weights have {held}; download or save both again"
            )


def _agreed_labels(found: Labels | None, given: Labels | None) -> Labels | None:
    """Give the labels that the checkpoint and the caller agree on; ids may come from either."""
    if found is None or given is None:
        return found if given is None else given
    if len(found) != len(given):
        raise CheckpointError(
            f"has {len(found)} labels of its own, but {len(given)} were given; leave out --labels"
        )
    agreed = []
    for place, (own, other) in enumerate(zip(found.items, given.items, strict=True)):
        if own.name != other.name or (own.id and other.id and own.id != other.id):
            raise CheckpointError(
                f"its own label {place} is {str(own)!r}, but {str(other)!r} was given; leave out --labels"
            )
        agreed.append(Label(own.name, own.id or other.id))
    return Labels(tuple(agreed))


def _agreed_preprocessing(found: Description, given: Preprocessing | None) -> Preprocessing | None:
    own = found.preprocessing
    if own is None:
        if given is None and found.problem:
            raise CheckpointError(found.problem)
        return given
    if given is None or given == own:
        return own
    differing = [
        f"{name.name} {getattr(own, name.name)} of its own, but {getattr(given, name.name)} was given"
        for name in fields(own)
        if getattr(own, name.name) != getattr(given, name.name)
    ]
    raise CheckpointError(f"has {', '.join(differing)}; leave out --preprocess")
