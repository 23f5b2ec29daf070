"""``vit-edge check``: a model file against torch on labelled images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as shared
from .device import open_classifier
from .progress import note, progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..checking import Report
    from ..checkpoint import Checkpoint
    from ..evaluation import Bounds
    from ..runtime.classifier import Classifier
    from ..runtime.labels import Labels
    from ..runtime.preprocess import Preprocessing
    from ..scores import Honesty

# Lines of a list that a person still reads; --json has all of them.
_SHOWN = 10


def check(
    model: Annotated[Path, typer.Argument(help="A file made by `vit-edge export`.")],
    against: Annotated[
        str,
        typer.Option(
            help="The checkpoint that the model was exported from: a file, folder, timm:NAME or hf:REPO. Or the file "
            "that --save-reference wrote: then torch is not needed."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="Images: a folder per class, named by label or synset id; or a folder of images without classes."
        ),
    ],
    save_reference: Annotated[
        Path | None,
        typer.Option(
            metavar="REF.npz",
            help="Keep torch's answers in this file, for --against on a device without torch.",
        ),
    ] = None,
    heads: shared.Heads = None,
    min_agreement: shared.MinAgreement = None,
    max_drift: shared.MaxDrift = None,
    max_drop: shared.MaxDrop = None,
    provider: shared.Provider = "auto",
    provider_option: shared.ProviderOptions = None,
    threads: shared.Threads = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Run the same images through a model file and its torch checkpoint (or take torch's kept answers), and show what
    changed.

    Exit status 1 where a given bound is broken.
    """
    from ..checking import Report, check_kept, check_model, require_kept, require_same
    from ..data import images_with_classes
    from ..errors import OptionError
    from ..evaluation import Bounds, require_classes
    from ..kept import KeptAnswers, image_digest, is_kept, require_new

    kept = KeptAnswers.load(Path(against)) if is_kept(Path(against)) else None
    if save_reference is not None:
        if kept is not None:
            raise OptionError(
                f"{against} holds answers that were kept before; give --save-reference with a checkpoint"
            )
        require_new(save_reference)
    # Bounds that are not given bind nothing here.
    bounds = Bounds(
        min_agreement=0.0 if min_agreement is None else min_agreement,
        max_drift=float("inf") if max_drift is None else max_drift,
        max_drop=float("inf") if max_drop is None else max_drop,
        min_batched_agreement=0.0,
    )
    own = shared.provider_options(provider_option)
    with open_classifier(model, provider, threads, provider_options=own, quiet=quiet) as classifier:
        samples = images_with_classes(data, classifier.labels)
        require_classes(max_drop, [sample.target for sample in samples])
        if kept is not None:
            require_kept(kept, classifier)
            events = check_kept(classifier, kept, samples)
        else:
            from ..checkpoint import load_checkpoint

            checkpoint = load_checkpoint(against, heads=heads)
            preprocessing = require_same(checkpoint, classifier)
            events = check_model(classifier, checkpoint.model, preprocessing, samples)
        with progress("checking", total=len(samples), unit="images", quiet=quiet) as advance:
            for event in events:
                if isinstance(event, Report):
                    report = event
                else:
                    advance()
        if save_reference is not None:
            assert report.reference is not None
            logits = dict(
                zip((image_digest(sample.path) for sample in samples), report.reference, strict=True)
            )
            written = _keep(save_reference, logits, checkpoint, preprocessing, classifier)
            note(
                f"{save_reference}: torch's answers for {len(logits)} images, {written / 1e6:.2f} MB",
                quiet=quiet,
            )
        labels = classifier.labels
    typer.echo(json.dumps(report.to_dict(labels), ensure_ascii=False) if as_json else _table(report, labels))
    _enforce(bounds, report)


def _keep(
    path: Path,
    logits: "dict[str, NDArray[np.float32]]",
    checkpoint: "Checkpoint",
    preprocessing: "Preprocessing",
    classifier: "Classifier",
) -> int:
    """Keep torch's answers, those for the pictures in the file's capsule as well: `choose` needs no others."""
    from ..kept import KeptAnswers, image_digest
    from ..reference import torch_logits
    from ..runtime.capsule import read_capsule
    from ..runtime.image import read_image
    from ..runtime.preprocess import preprocess

    capsule = read_capsule(Path(classifier.name), classifier.name)
    for picture in () if capsule is None else capsule.pictures:
        pixels = preprocess(read_image(picture.jpeg), preprocessing)
        logits = logits | {image_digest(picture.jpeg): torch_logits(checkpoint.model, pixels[None])[0]}
    source = classifier.metadata.source.get("sha256")
    return KeptAnswers(
        reference=Path(checkpoint.source).name,
        sources=tuple(dict.fromkeys((checkpoint.sha256, *([source] if isinstance(source, str) else [])))),
        labels=tuple(label.name for label in classifier.labels.items),
        preprocessing=preprocessing,
        logits=logits,
    ).save(path)


def _enforce(bounds: "Bounds", report: "Report") -> None:
    broken = bounds.broken_by(report.comparison)
    if broken is not None:
        note(f"bound broken: {broken}")
        raise typer.Exit(1)


def _table(report: "Report", labels: "Labels") -> str:
    comparison = report.comparison
    torch = "" if report.reference_images_per_s is None else f"{report.reference_images_per_s:.1f} torch, "
    rows = [
        ("images", _images(report)),
        ("agreement", f"{100 * comparison.agreement:.2f} % ({len(comparison.flips)} flips)"),
        ("logit drift", f"{comparison.drift:.3g} relative, {comparison.max_abs_drift:.3g} at most"),
        ("images per second", f"{torch}{report.model_images_per_s:.1f} model (from file to answer)"),
    ]
    lost: list[str] = []
    if (accuracy := comparison.accuracy) is not None:
        low, high = accuracy.drop_interval
        rows[1:1] = [
            (
                "top-1",
                f"{100 * accuracy.reference_top1:.2f} % torch, {100 * accuracy.model_top1:.2f} % model",
            ),
            (
                "top-5",
                f"{100 * accuracy.reference_top5:.2f} % torch, {100 * accuracy.model_top5:.2f} % model",
            ),
            ("top-1 drop", f"{accuracy.drop:.2f} points (95 % interval {low:.2f} to {high:.2f})"),
        ]
        rows += _score_rows(report.honesty)
        lost = [f"  {labels[index].name}: {count}" for index, count in accuracy.lost if count > 0]
    lines = [f"{name:<26} {value}" for name, value in rows]
    flips = [
        f"  {flip.path}: {labels[flip.reference].name} -> {labels[flip.model].name}" for flip in report.flips
    ]
    for title, entries in (("classes that lost most (images)", lost), ("flips (torch -> model)", flips)):
        if entries:
            lines += [f"{title}:", *entries[:_SHOWN]]
            if len(entries) > _SHOWN:
                lines.append(f"  and {len(entries) - _SHOWN} more; --json lists all")
    return "\n".join(lines)


def _images(report: "Report") -> str:
    found = f"{report.comparison.images}"
    return (
        f"{found}; {report.missing} more were left out, unknown to the kept answers"
        if report.missing
        else found
    )


def _score_rows(found: "Honesty | None") -> list[tuple[str, str]]:
    if found is None:
        return []
    before = f"{100 * found.ece_before:.2f} %"
    if found.ece_after is None:
        error = f"{before}; the file's scores are not calibrated"
    else:
        error = f"{before} before, {100 * found.ece_after:.2f} % after the file's temperature"
    right = "" if found.right is None else f", {100 * found.right:.2f} % of them right"
    return [
        ("expected calibration error", error),
        ("answered, not unknown", f"{100 * found.answered:.2f} %{right}"),
    ]
