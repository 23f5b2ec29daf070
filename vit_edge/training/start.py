"""What a training run starts from: random weights of a named size, or a checkpoint that is fine-tuned."""

from dataclasses import dataclass, replace

import torch

from ..checkpoint import Checkpoint, load_checkpoint
from ..errors import TrainingError
from ..models import ViT, ViTConfig
from ..runtime.labels import Labels
from ..runtime.preprocess import Preprocessing


@dataclass(frozen=True, eq=False)
class Start:
    """A network to train.

    Attributes:
        model: The network.
        preprocessing: What it takes.
        told: What a user should know of where it comes from, in a sentence.
    """

    model: ViT
    preprocessing: Preprocessing
    told: str


def new_model(config: ViTConfig, *, seed: int) -> ViT:
    """Make a network with random weights: the same for the same seed, and no other chance is touched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ViT(config)


def start_new(config: ViTConfig, preprocessing: Preprocessing, *, seed: int) -> Start:
    """Start from random weights."""
    model = new_model(config, seed=seed)
    return Start(model, preprocessing, f"a new network of {config.parameters:,} weights")


def start_from(
    checkpoint: Checkpoint,
    labels: Labels,
    preprocessing: Preprocessing,
    *,
    seed: int,
    distilled: bool = False,
) -> Start:
    """Start from a checkpoint's weights, with a head for the classes at hand.

    Where the checkpoint knows all of them, their rows of its head are kept, in the order of *labels*; otherwise the
    head is new.

    Args:
        checkpoint: What was trained before.
        labels: The classes to train.
        preprocessing: What the network takes.
        seed: Of a new head.
        distilled: Whether a distillation token and its head are added, where the checkpoint has none.

    Raises:
        TrainingError: The checkpoint takes images of another size than the preprocessing gives.
    """
    old = checkpoint.config
    if old.image_size != preprocessing.crop:
        raise TrainingError(
            f"the checkpoint takes images of {old.image_size[0]}x{old.image_size[1]} and the preprocessing gives "
            f"{preprocessing.crop[0]}x{preprocessing.crop[1]}; give the size with --image-size"
        )
    config = replace(old, classes=len(labels), distilled=old.distilled or distilled)
    model = new_model(config, seed=seed)
    weights, kept = model.state_dict(), checkpoint.model.state_dict()
    own = checkpoint.labels
    known = [None if own is None else own.find(label.id or label.name) for label in labels.items]
    places = None if None in known else torch.tensor(known)
    for name, value in kept.items():
        if name.startswith(("head.", "head_dist.")):
            if places is not None:
                weights[name] = value[places]
        elif name == "pos_embed" and config.distilled and not old.distilled:
            # The new token begins where the class token is.
            weights[name] = torch.cat([value[:, :1], value], dim=1)
        else:
            weights[name] = value
    if config.distilled and not old.distilled:
        weights["dist_token"] = kept["cls_token"].clone()
        if places is not None:
            weights["head_dist.weight"], weights["head_dist.bias"] = (
                weights["head.weight"],
                weights["head.bias"],
            )
    model.load_state_dict(weights)
    if places is None:
        had = "classes that it does not name" if checkpoint.labels is None else f"{old.classes} other classes"
        told = f"{checkpoint.source} was trained on {had}: it gets a new head for {len(labels)}"
    else:
        told = f"{checkpoint.source} knows all {len(labels)} classes: its head goes on"
    return Start(model, preprocessing, told)


def open_start(
    source: str,
    *,
    image_size: int | None,
    mean: str | None,
    std: str | None,
    heads: int | None = None,
    labels: Labels | None = None,
) -> tuple[Checkpoint, Preprocessing]:
    """Load what a run starts from, and tell what its images go through.

    Args:
        source: As `load_checkpoint` takes it.
        image_size: Side in pixels to train at; the checkpoint's own unless given.
        mean: One number or three, for a checkpoint that does not say.
        std: Likewise.
        heads: Attention heads, for a checkpoint that does not say.
        labels: The classes of a checkpoint that does not say.

    Raises:
        CheckpointError: It cannot be loaded.
        TrainingError: Nothing tells how its images were normalised.
        ModelError: *mean* or *std* is no colour.
    """
    checkpoint = load_checkpoint(source, heads=heads, labels=labels)
    own = checkpoint.preprocessing
    if own is None and (mean is None or std is None):
        raise TrainingError(
            f"{source} does not say how its images were normalised; give --mean and --std as it was trained with "
            "(0.5 for many ViTs, 0.485/0.456/0.406 and 0.229/0.224/0.225 for others)"
        )
    if own is not None and (mean is not None or std is not None):
        raise TrainingError(
            f"{source} says itself how its images were normalised; leave out --mean and --std"
        )
    if image_size is not None and (image_size, image_size) != checkpoint.config.image_size:
        checkpoint = load_checkpoint(source, heads=heads, labels=labels, image_size=image_size)
        if own is not None:
            own = replace(own, resize=image_size, crop=(image_size, image_size))
    if own is None:
        assert mean is not None
        assert std is not None
        own = usual_preprocessing(checkpoint.config.image_size, mean=mean, std=std)
    return checkpoint, own


def usual_preprocessing(image_size: tuple[int, int], *, mean: str, std: str) -> Preprocessing:
    """Give what images go through where nothing says it: the short side is resized, and the centre cropped.

    Args:
        image_size: Height and width of what the network takes.
        mean: One number or three.
        std: Likewise.

    Raises:
        ModelError: *mean* or *std* is no colour.
    """
    height, width = image_size
    return Preprocessing.parse(
        f"resize={min(height, width)},crop={height}x{width},interpolation=bicubic,mean={mean},std={std}"
    )
