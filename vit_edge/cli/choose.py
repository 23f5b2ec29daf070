"""``vit-edge choose``: of several files of one model, the fastest on this device that keeps its bounds."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as shared
from .device import open_classifier
from .progress import Stages, note

if TYPE_CHECKING:
    from ..choosing import Candidate, Shown
    from ..runtime.classifier import Classifier


def choose(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="Files of one model, made by `vit-edge export --variants`."),
    ],
    against: Annotated[
        Path, typer.Option(help="Torch's answers, as `vit-edge check --save-reference` kept them.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The images whose answers were kept, a folder per class or without classes; the pictures in the "
            "files' capsules unless given."
        ),
    ] = None,
    min_agreement: shared.MinAgreement = None,
    max_drift: shared.MaxDrift = None,
    max_drop: shared.MaxDrop = None,
    provider: shared.Provider = "auto",
    provider_option: shared.ProviderOptions = None,
    threads: shared.Threads = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Print the path of the fastest file on this device that keeps its bounds; the table goes to stderr.

    Bounds that are not given are those that each file was exported with. A file that cannot run here is left out, with
    the reason. Exit status 1 where none is left.
    """
    from ..choosing import Candidate, Wanted, compare_here, fastest, images_of
    from ..data import images_with_classes
    from ..errors import ModelError, ProviderError
    from ..evaluation import require_classes
    from ..kept import KeptAnswers
    from ..runtime.model_file import require_file

    kept = KeptAnswers.load(against)
    for path in models:
        require_file(path)
    own = shared.provider_options(provider_option)
    if data is None:
        # Before any file is opened, which a provider may compile for minutes.
        require_classes(max_drop, ())
    refused: dict[Path, Candidate] = {}
    with ExitStack() as stack:
        opened: dict[Path, Classifier] = {}
        for path in dict.fromkeys(models):
            try:
                opened[path] = stack.enter_context(
                    open_classifier(path, provider, threads, provider_options=own, quiet=quiet)
                )
            # Of variants for other devices some may not run on this one: that is what is being found out.
            except (ModelError, ProviderError) as error:
                refused[path] = Candidate(path, problem=str(error))
        candidates: dict[Path, Candidate] = {}
        images: tuple[Shown, ...] = ()
        unknown = 0
        if opened:
            labels = next(iter(opened.values())).labels
            samples = None if data is None else images_with_classes(data, labels)
            if samples is not None:
                require_classes(max_drop, [sample.target for sample in samples])
            images, unknown = images_of(kept, samples, list(opened))
            stages = stack.enter_context(Stages(quiet=quiet))
            work = compare_here(
                list(opened.values()), kept, images, Wanted(min_agreement, max_drift, max_drop)
            )
            candidates = dict(zip(opened, stages.follow(work, lambda moved: moved), strict=True))
    rows = [refused.get(path) or candidates[path] for path in dict.fromkeys(models)]
    winner = fastest(rows)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "chosen": None if winner is None else str(winner.path),
                    "images": len(images),
                    "missing": unknown,
                    "set": "capsules" if data is None else data.name,
                    "models": [row.to_dict() for row in rows],
                },
                ensure_ascii=False,
            )
        )
    else:
        note(_table(rows, winner), quiet=quiet)
        if winner is not None:
            typer.echo(str(winner.path))
    if unknown:
        note(f"{unknown} images were left out, unknown to the kept answers", quiet=quiet)
    if data is None and opened:
        note(
            f"judged by the drift on the {len(images)} pictures in the files; give --data for more",
            quiet=quiet,
        )
    if winner is None:
        note(
            "no file keeps its bounds on this device; allow more with --max-drift, --min-agreement or --max-drop"
        )
        raise typer.Exit(1)


def _table(rows: "Sequence[Candidate]", winner: "Candidate | None") -> str:
    width = max(len(str(row.path)) for row in rows)
    lines = [f"  {'file':<{width}} {'provider':<10} {'ms':>8} {'agreement':>11} {'drift':>8} {'drop':>7}"]
    for row in rows:
        comparison = row.comparison
        mark = ">" if row is winner else " "
        if comparison is None:
            lines.append(f"{mark} {row.path!s:<{width}} cannot run here")
        else:
            drop = "-" if comparison.accuracy is None else f"{comparison.accuracy.drop:.2f}"
            lines.append(
                f"{mark} {row.path!s:<{width}} {row.provider:<10} {row.latency_ms:8.2f} "
                f"{100 * comparison.agreement:9.2f} % {comparison.drift:8.3g} {drop:>7}"
            )
        if row.problem:
            lines.append(f"    {row.problem}")
    return "\n".join(lines)
