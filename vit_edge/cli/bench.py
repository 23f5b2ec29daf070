"""``vit-edge bench``: what an image costs on this device, model by model, and the thread count that suits it."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import OptionError
from . import options as shared
from .bench_tables import device_line, pictures_line, tables
from .progress import Stages, answer, note, working

if TYPE_CHECKING:
    from ..bench import Plan, Report

_AUTO = "auto"

# With more than this share of its cores at work, a machine's times are no longer its own.
_BUSY = 0.5


def bench(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Files made by `vit-edge export`.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images to classify, at most 32 of them; a made JPEG of 1280x720 unless given."
        ),
    ] = None,
    provider: Annotated[
        str,
        typer.Option(
            help="Execution providers, as in cpu,openvino; auto is the best that works here of those that a file was "
            "made for."
        ),
    ] = _AUTO,
    provider_option: shared.ProviderOptions = None,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Threads for one answer, as in 1,2,4, or auto to search for the best count; what `Classifier` takes "
            "unless given."
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Images in one call, as in 1,8.")] = "1",
    concurrency: Annotated[
        str, typer.Option(help="Threads that share one classifier, each with calls of its own, as in 1,4.")
    ] = "1",
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long each model is timed in each setting.")
    ] = 4.0,
    starts: Annotated[
        int, typer.Option(min=0, help="Fresh processes for the start and the memory; 0 leaves both out.")
    ] = 5,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the best thread count, or the one that --threads names, on this device."
        ),
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what --keep kept for these files; measure nothing.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw the times to a .svg or .png file.")] = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Measure models on this device, without torch: each stage, throughput, memory, and the start.

    Several models take turns, so that a machine whose speed drifts treats all alike.
    """
    from .. import bench as library
    from ..runtime.classifier import Classifier

    # The notes are printed here; without any handler Python would print the log's copy as well.
    logging.getLogger(Classifier.__module__).addHandler(logging.NullHandler())
    if forget:
        _forget(models)
        return
    plan = library.Plan(
        tuple(models),
        tuple(name.strip() for name in provider.split(",")),
        _threads(threads, keep=keep),
        _numbers("--batch", batch),
        _numbers("--concurrency", concurrency),
        seconds,
        starts,
        tuple(shared.provider_options(provider_option).items()),
    )
    if plan.provider_options and len(plan.providers) > 1:
        raise OptionError(
            f"expected one --provider with --provider-option, got {provider}; bench them one by one"
        )
    if plot is not None:
        library.require_format(plot)
    pictures = library.made_pictures() if data is None else library.pictures_in(data)
    with Stages(quiet=quiet) as stages:

        @contextmanager
        def compiling(title: str) -> Iterator[None]:
            # One display at a time; the stage goes on below.
            stages.close()
            with working(title, quiet=quiet):
                yield

        work = library.run(plan, pictures, compiling=compiling)
        report = stages.follow(work, lambda step: (step.stage, step.done, step.total))
    kept = list(_keep(report)) if keep else []
    if plot is not None:
        about = f"{device_line(report.device)}; {pictures_line(pictures)}"
        library.save_chart(plot, report.rows, title="What an image costs on this device", subtitle=about)
    if as_json:
        answer(json.dumps(report.to_dict() | {"kept": kept}))
    else:
        for line in tables(report):
            answer(line)
    for sentence in _notes(report, kept, plan):
        note(sentence)
    _say_busy(report, quiet=quiet)
    if plot is not None:
        note(f"wrote {plot}", quiet=quiet)


def _threads(text: str | None, *, keep: bool) -> tuple[int | None, ...] | Literal["auto"]:
    if text == _AUTO or (keep and text is None):
        return "auto"
    if text is None:
        return (None,)
    counts = _numbers("--threads", text, f", or {_AUTO}")
    if keep and len(counts) > 1:
        raise OptionError(f"expected --threads auto or one number with --keep, got {text}")
    return counts


def _numbers(option: str, text: str, otherwise: str = "") -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise OptionError(
            f"expected {option} to be whole numbers from 1 on, as in 1,2{otherwise}, got {text!r}"
        )
    return tuple(dict.fromkeys(numbers))


def _keep(report: "Report") -> Iterator[dict[str, Any]]:
    """Keep each model's thread count with each provider; what was kept, and where."""
    from ..runtime.tuning import keep_threads

    found = {(row.model, row.seal, row.setting.provider): row.setting.threads for row in report.rows}
    for (model, seal, provider), threads in found.items():
        assert threads is not None
        path = keep_threads(seal, provider, threads)
        yield {"model": str(model), "provider": provider, "threads": threads, "path": str(path)}


def _forget(models: Sequence[Path]) -> None:
    from ..runtime.seal import check_seal
    from ..runtime.tuning import forget_threads

    for model, seal in [(model, check_seal(model, str(model))) for model in models]:
        if forget_threads(seal):
            note(f"forgot what was kept for {model} on this device")
        else:
            note(f"nothing was kept for {model} on this device")


def _notes(report: "Report", kept: Sequence[dict[str, Any]], plan: "Plan") -> Iterator[str]:
    from ..runtime.tuning import tuned_threads

    for sentence in dict.fromkeys(sentence for row in report.rows for sentence in row.notes):
        yield f"note: {sentence}"
    for one in kept:
        yield (
            f"kept {one['threads']} threads for {one['model']} with {one['provider']} in {one['path']}; "
            f"`vit-edge bench {one['model']} --forget` forgets it"
        )
    if plan.threads == (None,):
        used = {row.model: row for row in report.rows}
        for model, row in used.items():
            if tuned_threads(row.seal, row.setting.provider) is not None:
                yield (
                    f"{model} runs on the thread count that was kept on this device, {row.setting.threads}; "
                    f"`vit-edge bench {model} --forget` forgets it"
                )


def _say_busy(report: "Report", *, quiet: bool) -> None:
    load, cores = report.device["load"], report.device["cores"]
    if load is not None and load > _BUSY * cores:
        busy = f"note: before the start this machine was busy (load {load:.1f} on {cores} cores)"
        note(f"{busy}, so that the times may be too long; the ratios suffer less", quiet=quiet)
