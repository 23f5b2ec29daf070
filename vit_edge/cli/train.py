"""``vit-edge train``: from a folder of images to a checkpoint."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..errors import OptionError
from . import options as shared
from . import train_data, train_start
from .progress import note, progress

if TYPE_CHECKING:
    from ..training import Step

# What works where nothing is said: a new network, one that is fine-tuned, and a head alone on frozen features.
_SCRATCH: dict[str, Any] = {
    "epochs": 50,
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "mixup": 0.2,
    "drop_path": 0.05,
    "layer_decay": 1.0,
    "ema": 0.999,
}
_TUNED = _SCRATCH | {
    "epochs": 10,
    "learning_rate": 2e-4,
    "mixup": 0.0,
    "layer_decay": 0.75,
    "ema": 0.99,
}
_FROZEN = _TUNED | {"learning_rate": 3e-3, "weight_decay": 0.0, "drop_path": 0.0, "layer_decay": 1.0}

_BY_START = "depends on --from and --freeze"

Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training images.", show_default="50; 10 with --from")
]


def train(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder that holds one folder of images per class; CIFAR's binary form; a list of images (.csv, "
            ".jsonl); or tar shards, as in 'train-{000..123}.tar'."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The run's folder: checkpoints, metrics, curves, and its state."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A name that `vit-edge models` lists; trained from scratch.",
            show_default="vit_mini_patch4_32",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="A checkpoint to fine-tune: a file, a folder, timm:NAME or hf:REPO."),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head alone (a linear probe).")] = False,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels of what the network sees.", show_default="the model's")
    ] = None,
    epochs: Epochs = None,
    batch_size: Annotated[int, typer.Option(help="Images per step, on all devices together.")] = 64,
    lr: Annotated[
        float | None, typer.Option(help="The highest learning rate of AdamW.", show_default=_BY_START)
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Of weights; biases, norms, positions keep 0.", show_default="0.05; 0 with --freeze"
        ),
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="The share of the rate from each block to the one before it.",
            show_default="1; 0.75 with --from",
        ),
    ] = None,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the rate rises.")] = 0.1,
    label_smoothing: Annotated[float, typer.Option(help="What the right class gives up to all.")] = 0.1,
    clip_norm: Annotated[float, typer.Option(help="The gradient's largest norm.")] = 1.0,
    augment: Annotated[
        str,
        typer.Option(
            help="Changes to images: trivial (TrivialAugment), rand (RandAugment), shift (small moves; for digits, "
            "text and signs) or none."
        ),
    ] = "trivial",
    magnitude: Annotated[int, typer.Option(help="RandAugment's, 0 to 30.")] = 9,
    crop_scale: Annotated[
        float | None,
        typer.Option(
            help="The least share of its area that a random crop keeps; 1 crops nothing.",
            show_default="0.6; 1 with --augment none",
        ),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Mirror half of the images; wrong for digits, text and signs.")
    ] = False,
    erasing: Annotated[float, typer.Option(help="Share of images with a random rectangle erased.")] = 0.0,
    mixup: Annotated[
        float | None, typer.Option(help="MixUp's alpha; 0 mixes nothing.", show_default="0.2; 0 with --from")
    ] = None,
    cutmix: Annotated[float, typer.Option(help="CutMix's alpha; 0 mixes nothing.")] = 0.0,
    drop_path: Annotated[
        float | None,
        typer.Option(
            help="Share of branches that the last block leaves out.", show_default="0.05; 0 with --freeze"
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="What the moving average of the weights keeps of itself in a step; 0 goes without.",
            show_default="0.999; 0.99 with --from",
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A checkpoint whose answers are learned (distillation).")
    ] = None,
    teacher_labels: Annotated[
        Path | None,
        typer.Option(
            help="A text file with one label a line, in the order of the teacher's outputs; for one that has none."
        ),
    ] = None,
    teacher_preprocess: Annotated[
        str | None,
        typer.Option(
            help="How images were prepared for the teacher, as export's --preprocess tells it; for one that does not "
            "say."
        ),
    ] = None,
    distillation: Annotated[
        str, typer.Option(help="soft: the teacher's probabilities; hard: its first answer.")
    ] = "soft",
    distillation_weight: Annotated[float, typer.Option(help="The teacher's share of the loss.")] = 0.5,
    temperature: Annotated[
        float, typer.Option(help="What softens probabilities for soft distillation.")
    ] = 3.0,
    distillation_token: Annotated[
        bool,
        typer.Option("--distillation-token", help="Give the network DeiT's token and head for the teacher."),
    ] = False,
    qat: Annotated[
        bool,
        typer.Option(
            "--qat",
            help="Train with the quantizers of a static INT8 export in place; mostly to fine-tune, with --from.",
        ),
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(
            help="The target that --qat trains for, as `vit-edge export --target` takes it: openvino, tensorrt, qnn, "
            "cpu or cpu-avx2.",
            show_default="openvino",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, or bf16 on devices that have it.")] = "float32",
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network with torch.compile.")
    ] = False,
    val: Annotated[
        str | None,
        typer.Option(
            help="Images to validate on, of any kind that DATA may be.", show_default="a share of DATA"
        ),
    ] = None,
    val_share: Annotated[float, typer.Option(help="The share of each class to validate on.")] = 0.1,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Taken off pixels scaled to 0..1: one number or RED/GREEN/BLUE.",
            show_default="0.5; the checkpoint's with --from",
        ),
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="What is left is divided by it: likewise.", show_default="likewise")
    ] = None,
    heads: shared.Heads = None,
    labels: shared.Labels = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that load images.", show_default="by the images")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all chance: the same seed, the same weights.")] = 0,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave images that cannot be read out.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped: the same command, and this.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a run that is there.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Train or fine-tune a Vision Transformer on a folder of images.

    Images are resized (bicubic) so that their short side is the image size, cropped at the centre and
    normalised; all of this is stored in the checkpoint, with the labels, and the device will do the same.
    The best epoch on the validation images is kept. Several devices or machines: start it with `torchrun` or
    `accelerate launch`, as in `torchrun --nproc-per-node 2 -m vit_edge train DATA -o RUN`.
    """
    # First, for where torch is missing, its extra brings all the rest as well.
    import torch

    from ..training import (
        BEST,
        STATE,
        Processes,
        Recipe,
        Report,
        best_epoch,
        fit,
        has_bf16,
        left_out,
        open_run,
        worker_errors,
        write_config,
    )

    if freeze and start is None:
        raise OptionError("--freeze trains a head on the features of a checkpoint; give one with --from")
    if start is not None and model is not None:
        raise OptionError("--from brings its own sizes; leave out --model")
    if teacher is None and (teacher_labels is not None or teacher_preprocess is not None):
        raise OptionError(
            "--teacher-labels and --teacher-preprocess tell of a teacher; name it with --teacher"
        )
    if target is not None and not qat:
        raise OptionError("--target chooses the grids of quantization-aware training; give --qat as well")
    usual = _FROZEN if freeze else _SCRATCH if start is None else _TUNED
    given = {
        "epochs": epochs,
        "learning_rate": lr,
        "weight_decay": weight_decay,
        "layer_decay": layer_decay,
        "mixup": mixup,
        "drop_path": drop_path,
        "ema": ema,
    }
    recipe = Recipe(
        **usual
        | {name: value for name, value in given.items() if value is not None}
        | {
            "batch_size": batch_size,
            "warmup": warmup,
            "label_smoothing": label_smoothing,
            "clip_norm": clip_norm,
            "augment": augment,
            "magnitude": magnitude,
            "crop_scale": (1.0 if augment == "none" else 0.6) if crop_scale is None else crop_scale,
            "flip": flip,
            "erasing": erasing,
            "cutmix": cutmix,
            "freeze": freeze,
            "distillation": "none" if teacher is None else distillation,
            "distillation_weight": distillation_weight,
            "temperature": temperature,
            **(train_start.grids(target or "openvino") if qat else {}),
            "precision": precision,
            "compile": compile_,
            "seed": seed,
        }
    )

    if recipe.changes:
        # Its absence is told now, and not when all images are read.
        import torchvision  # noqa: F401

    processes = Processes()
    quiet = quiet or not processes.first
    found = train_data.find(data, val, share=val_share, seed=seed, quiet=quiet)
    classes = found.labels
    begun = train_start.open_network(
        start,
        model or "vit_mini_patch4_32",
        classes,
        image_size=image_size,
        mean=mean,
        std=std,
        heads=heads,
        labels=labels,
        distilled=distillation_token,
        seed=seed,
    )
    preprocessing = begun.preprocessing
    run = open_run(output, force=force, resume=resume)
    if resume and not (run / STATE).exists():
        note(f"{run} holds no state to go on from: the run starts from its beginning", quiet=quiet)
    for package, what in left_out().items():
        advice = "`pip install 'vit-edge[train]'`"
        note(f"{package} is not installed, so there will be no {what}: {advice}", quiet=quiet)
    note(f"training {begun.told}", quiet=quiet)
    if qat:
        if precision == "bf16":
            note(
                "bf16 rounds about as coarsely as INT8, so that --qat hardly sees what INT8 does; --precision float32 "
                "shows it",
                quiet=quiet,
            )
    elif precision == "float32" and has_bf16(processes.device):
        note("this device computes in bf16 as well: --precision bf16 is faster", quiet=quiet)
    learned = None
    if teacher is not None:
        learned = train_start.open_teacher(
            teacher, classes, processes, labels=teacher_labels, preprocess=teacher_preprocess
        )
    ready = train_data.read(found, preprocessing, whole=recipe.crops, skip_broken=skip_broken, quiet=quiet)
    training_set, validation_set = ready.training, ready.validation
    if processes.first:
        sizes = begun.model.config.to_dict()
        write_config(
            run,
            {
                "recipe": recipe.to_dict(),
                "network": sizes,
                "from": start,
                "teacher": teacher,
                "preprocessing": str(preprocessing),
                "data": data,
                "val": val,
                "val_share": None if val is not None else val_share,
                "skip_broken": skip_broken,
                "images": ready.report.to_dict(),
                "versions": {"vit-edge": __version__, "torch": torch.__version__},
            },
        )
    done = 0
    steps = recipe.epochs * -(-len(training_set) // recipe.batch_size)
    shown = progress("Training", total=steps, unit="steps", quiet=quiet)
    # Workers live while an epoch is told of, too.
    with worker_errors(), shown as advance, Report(run) as report:

        def on_step(step: "Step") -> None:
            nonlocal done
            advance(step.step - done, note=_told(step))
            done = step.step
            if processes.first:
                report.step(step)

        def on_features(looked: int, total: int) -> None:
            advance(0, note=f"{looked} of {total} images looked at by the frozen network")

        for epoch in fit(
            begun.model,
            training_set,
            validation_set,
            labels=classes,
            recipe=recipe,
            run=run,
            teacher=learned,
            processes=processes,
            workers=_workers(workers, cropped=training_set.cropped, augment=augment),
            resume=resume,
            on_step=on_step,
            on_features=on_features,
        ):
            if processes.first:
                report.epoch(epoch)
                advance(0, note=f"epoch {epoch.epoch}: accuracy {100 * epoch.val_accuracy:.1f} %")
    if processes.first:
        best = best_epoch(run)
        typer.echo(
            f"{run / BEST}: {100 * best['val_accuracy']:.1f} % of {len(validation_set)} validation images right "
            f"(epoch {best['epoch']} of {recipe.epochs})"
        )


# Beside the process that trains: for images in memory, and the most for those that are read and decoded.
_WORKERS, _READERS = 2, 8


def _workers(given: int | None, *, cropped: bool, augment: str) -> int:
    """Give how many processes load images: none where they are ready in memory, half of the cores where all are read.

    More would take the cores of what trains on a small machine.
    """
    from ..runtime.cores import usable_cores

    if given is not None:
        return given
    if cropped:
        return 0 if augment == "shift" else _WORKERS
    return min(max(_WORKERS, usable_cores() // 2), _READERS)


def _told(step: "Step") -> str:
    left = datetime.timedelta(seconds=round(step.seconds_left))
    return (
        f"epoch {step.epoch}, loss {step.loss:.3f}, rate {step.learning_rate:.1e}, "
        f"{step.images_per_second:.0f} images/s, {left} left"
    )
