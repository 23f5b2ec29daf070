"""``vit-edge train``: from a folder of images to a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ModelError, OptionError
from .options import Quiet
from .progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..data import Sample
    from ..runtime.labels import Labels
    from ..runtime.preprocess import Preprocessing
    from ..training import Decoded, ImageSet


def train(
    data: Annotated[Path, typer.Argument(help="A folder that holds one folder of images per class.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The run's folder: best.safetensors and metrics.jsonl.")
    ],
    model: Annotated[
        str, typer.Option(help="A name that `vit-edge models` lists; trained from scratch.")
    ] = "vit_mini_patch4_32",
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels of what the network sees.", show_default="the model's")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 50,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 64,
    lr: Annotated[float, typer.Option(help="The highest learning rate of AdamW.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of weights; biases, norms, positions keep 0.")] = 0.05,
    val: Annotated[
        Path | None,
        typer.Option(help="Images to validate on, one folder per class.", show_default="a share of DATA"),
    ] = None,
    val_share: Annotated[float, typer.Option(help="The share of each class to validate on.")] = 0.1,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror half of the images; wrong for digits, text and signs.")
    ] = False,
    mean: Annotated[
        str, typer.Option(help="Taken off pixels scaled to 0..1: one number or RED/GREEN/BLUE.")
    ] = "0.5",
    std: Annotated[str, typer.Option(help="What is left is divided by it: likewise.")] = "0.5",
    seed: Annotated[int, typer.Option(help="Of all chance: the same seed, the same weights.")] = 0,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave images that cannot be read out.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a run that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a Vision Transformer on a folder of images.

    Images are resized (bicubic) so that their short side is the image size, cropped at the centre and
    normalised; all of this is stored in the checkpoint, with the labels, and the device will do the same.
    The best epoch on the validation images is kept.
    """
    # First, for where torch is missing, its extra brings all the rest as well.
    from ..training import BEST, Recipe, check_apart, check_memory, fit, new_model, open_run, split

    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=lr,
        weight_decay=weight_decay,
        flip=flip,
        seed=seed,
    )

    from ..data import class_folders, labelled_images
    from ..models import named
    from ..runtime.preprocess import Preprocessing

    labels = class_folders(data)
    config = named(model, classes=len(labels), image_size=image_size)
    height, width = config.image_size
    size = f"resize={min(height, width)},crop={height}x{width}"
    try:
        preprocessing = Preprocessing.parse(f"{size},interpolation=bicubic,mean={mean},std={std}")
    except ModelError as error:
        raise OptionError(str(error)) from error
    samples = labelled_images(data, labels)
    if val is None:
        training, validation = split(samples, labels, share=val_share, seed=seed)
    else:
        training, validation = samples, labelled_images(val, labels)
        check_apart(training, validation)
    check_memory(len(training) + len(validation), preprocessing)
    run = open_run(output, force=force)
    training_set, validation_set = (
        _read(part, what, labels, preprocessing, skip_broken=skip_broken, quiet=quiet)
        for part, what in ((training, "training"), (validation, "validation"))
    )
    best = 0.0
    chosen = 0
    with progress("Training", total=epochs, unit="epochs", quiet=quiet) as advance:
        network = new_model(config, seed=seed)
        for epoch in fit(network, training_set, validation_set, labels=labels, recipe=recipe, run=run):
            if epoch.best:
                best, chosen = epoch.val_accuracy, epoch.epoch
            advance(
                1,
                note=f"loss {epoch.loss:.3f}, accuracy {100 * epoch.val_accuracy:.1f} %, "
                f"{epoch.images_per_second:.0f} images/s",
            )
    typer.echo(
        f"{run / BEST}: {100 * best:.1f} % of {len(validation_set)} validation images right "
        f"(epoch {chosen} of {epochs})"
    )


def _read(
    samples: "Sequence[Sample]",
    what: str,
    labels: "Labels",
    preprocessing: "Preprocessing",
    *,
    skip_broken: bool,
    quiet: bool,
) -> "ImageSet":
    from ..training import check_classes, decode, gather

    with progress(f"Reading {what} images", total=len(samples), unit="images", quiet=quiet) as advance:

        def shown() -> "Iterator[Decoded]":
            for image in decode(samples, preprocessing):
                advance()
                yield image

        images = gather(shown(), len(samples), preprocessing, skip_broken=skip_broken)
    if left_out := len(samples) - len(images):
        typer.echo(f"left out {left_out} {what} images that cannot be read", err=True)
    check_classes(images, labels, what)
    return images
