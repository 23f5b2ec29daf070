"""``vit-edge export``: from a checkpoint to one verified ONNX file."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as shared
from .load import given, open_network
from .progress import Stages, note

if TYPE_CHECKING:
    from ..export import Export, Step
    from ..scores import Scores

# Named here, so that the command's help needs nothing of what an export does.
TARGET_NAMES = ("cpu", "cpu-avx2", "openvino", "tensorrt", "qnn", "coreml")

# Layers of the ranking that a person still reads; --json has all of them.
_HARMFUL = 5


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A .safetensors, .pth or .npz file, a folder saved by timm or transformers, timm:NAME, or hf:REPO; "
            "or a float .onnx made elsewhere, whose own answers then are the reference."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images that choose and fit; those of your own domain. Labels are not needed; with a "
            "folder per class they make the probabilities honest."
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="A folder per class of labelled images; they choose nothing and can only veto."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many images of --calibrate are used.")] = 128,
    precision: Annotated[
        str,
        typer.Option(
            help="auto (int8 where it keeps its bounds, else float32 with the reason), float32, float16 or int8."
        ),
    ] = "auto",
    target: Annotated[
        str | None,
        typer.Option(help=f"What the file is for: {', '.join(TARGET_NAMES)}; cpu unless given."),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET,TARGET,...",
            help="Write a file for each of several targets; MODEL.onnx becomes MODEL.TARGET.onnx.",
        ),
    ] = None,
    target_python: Annotated[
        Path | None,
        typer.Option(
            help="A Python interpreter whose onnxruntime has the target's provider: answers and times are taken there."
        ),
    ] = None,
    input_: Annotated[
        str,
        typer.Option(
            "--input",
            help="What the graph takes: float32, normalised planes; or uint8, raw pixels (batch, height, width, 3).",
        ),
    ] = "float32",
    budget: Annotated[
        str, typer.Option(help="How long the search for the INT8 graph may take, as in 90s, 5m or 1h.")
    ] = "5m",
    pick: Annotated[
        str,
        typer.Option(
            help="Which INT8 graph that keeps its bounds ships: balanced (the closest to torch of those at most 12 % "
            "slower than the fastest), fastest, smallest or closest."
        ),
    ] = "balanced",
    merge_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="auto|BLOCK:TOKENS,...",
            help="Merge alike tokens (ToMe) as well: where the search finds it pays, or so many at these blocks.",
        ),
    ] = None,
    capsule: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|N",
            help="Which pictures travel in the file for `vit-edge verify`: 8 of a folder's, or N of --calibrate's, the "
            "small side at most 512 pixels; 0 for none. Unless given, a few that are made by code: nobody's own.",
        ),
    ] = None,
    labels: shared.Labels = None,
    preprocess: shared.Preprocess = None,
    heads: shared.Heads = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Run at this side in pixels: the positions are resampled. Needs --preprocess for it."
        ),
    ] = None,
    simplify: Annotated[bool, typer.Option(help="Simplify the graph with onnxsim.")] = True,
    opset: Annotated[int, typer.Option(min=17, max=23, help="The ONNX operator set to write.")] = 20,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Take any batch size (the default).")
    ] = False,
    batch: Annotated[int | None, typer.Option(min=1, help="Take this batch size only.")] = None,
    min_agreement: shared.MinAgreement = None,
    max_drift: shared.MaxDrift = None,
    max_drop: shared.MaxDrop = None,
    min_speedup: Annotated[
        float, typer.Option(min=0.0, help="How many times as fast as float32 INT8 must be on this machine.")
    ] = 1.05,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="The probability below which the file calls an answer unknown; half way from a blind guess to "
            "certainty unless given.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object a file: candidates, ranking of layers, steps."),
    ] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Turn a checkpoint into one ONNX file, quantized to INT8 and checked against torch after every step.

    Bounds that are not given are, for int8: agreement at least 0.98, drift at most 0.15, drop at most 1 point; for
    float16: 0.99, 0.02, 0.5; for float32: 0.999, 0.0001, 0.1.
    """
    from ..errors import OptionError
    from ..export import Export, Options, Step, Tick, run

    if dynamic_batch and batch is not None:
        raise OptionError("--dynamic-batch takes any batch size and --batch one; give one of the two")
    if variants is not None and target is not None:
        raise OptionError("--target makes one file and --variants several; give one of the two")
    chosen = Options(
        precision=precision,  # type: ignore[arg-type]  # checked by Options, with a sentence
        simplify=simplify,
        opset=opset,
        batch=batch,
        samples=samples,
        min_agreement=min_agreement,
        max_drift=max_drift,
        max_drop=max_drop,
        min_speedup=min_speedup,
        targets=tuple(variants.split(",")) if variants is not None else (target or "cpu",),
        input=input_,  # type: ignore[arg-type]
        budget_s=_seconds(budget),
        pick=pick,  # type: ignore[arg-type]
        merge_tokens=merge_tokens,
        target_python=target_python,
        threshold=threshold,
        capsule=_capsule(capsule),
        force=force,
    )
    given_labels, given_preprocessing = given(labels, preprocess)
    if variants is None and output.exists() and not force:
        raise OptionError(f"{output} exists; give --force to replace it, or another name with -o")
    opened = open_network(
        checkpoint, labels=given_labels, preprocessing=given_preprocessing, heads=heads, image_size=image_size
    )
    events = run(
        opened.network,
        labels=opened.labels,
        preprocessing=opened.preprocessing,
        output=output,
        source=opened.source,
        calibrate=calibrate,
        check=check,
        options=chosen,
    )
    with Stages(quiet=quiet) as stages:
        for event in events:
            if isinstance(event, Tick):
                stages.show(event.stage, event.done, event.total)
            elif isinstance(event, Step):
                stages.close()
                note(_line(event), quiet=quiet)
            elif isinstance(event, Export):
                stages.close()
                if as_json:
                    typer.echo(json.dumps(event.to_dict(), ensure_ascii=False))
                else:
                    typer.echo(_summary(event, opened.network.reference))


def _seconds(text: str) -> float:
    """Read a time as typed: 90s, 5m, 1h, or a plain number of seconds."""
    from ..errors import OptionError

    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smh]?)\s*", text)
    if match is None:
        raise OptionError(f"expected --budget as a time such as 90s, 5m or 1h, got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _capsule(text: str | None) -> int | Path | None:
    """Read a number, or a folder; one whose name is a number is given as ./3."""
    if text is None:
        return None
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else Path(text)


def _line(step: "Step") -> str:
    name = step.name if len(step.name) <= 60 else f"{step.name[:57]}..."
    line = f"  {name:<60} {step.seconds:6.1f} s {step.bytes / 1e6:8.2f} MB"
    if step.comparison is not None:
        line += f"  agreement {100 * step.comparison.agreement:6.2f} %  drift {step.comparison.drift:.2g}"
    return line + (f"\n    left out: {step.problem}" if step.problem else "")


def _summary(result: "Export", reference: str) -> str:
    final: Any = result.comparison
    lines = [
        *_table(result),
        f"{result.path}: {result.precision}, {result.bytes / 1e6:.2f} MB, for {result.target}",
        f"  agreement with {f'{reference} ':<16}{100 * final.agreement:.2f} % of {final.images} images of "
        f"{result.checked_on} ({len(final.flips)} differ)",
        f"  logit drift                    {final.drift:.3g} relative, {final.max_abs_drift:.3g} at most",
    ]
    if final.accuracy is not None:
        low, high = final.accuracy.drop_interval
        lines.append(
            f"  top-1                          {100 * final.accuracy.reference_top1:.2f} % -> "
            f"{100 * final.accuracy.model_top1:.2f} %, drop {final.accuracy.drop:.2f} points "
            f"(95 % interval {low:.2f} to {high:.2f})"
        )
    if result.batched_agreement is not None:
        lines.append(
            f"  in batches of 5                {100 * result.batched_agreement:.2f} % keep the answer that they get "
            "alone"
        )
    if result.latency_ms is not None and result.float32_ms is not None:
        times = f"{result.latency_ms:.2f} ms, {result.float32_ms:.2f} ms in float32"
        lines.append(f"  one answer                     {times}, on this machine")
    elif result.precision == "int8":
        lines.append(
            f"  one answer                     not timed: the provider of {result.target} is not installed here; "
            "name an interpreter that has it with --target-python, or time it on the device"
        )
    lines += _score_lines(result.scores)
    if (packed := result.capsule) is not None:
        lines.append(
            f"  capsule                        {packed.pictures} pictures, {packed.set}, {packed.bytes / 1e6:.2f} MB "
            "of the file; `vit-edge verify` replays them on a device"
        )
    if result.reason:
        lines.append(f"  not int8, since {result.reason}")
    if not result.complete:
        lines.append(
            "  the search was cut short; the same command again goes on with its measurements, or give more --budget"
        )
    return "\n".join(lines)


def _score_lines(scores: "Scores") -> list[str]:
    """Say how far the probabilities can be trusted."""
    if scores.temperature is not None and scores.fitted is not None:
        low, high = scores.temperature.interval
        told = f"temperature {scores.temperature.value:.3f} (95 % interval {low:.2f} to {high:.2f})"
        lines = [f"  scores                         {told} from {scores.fitted.images} labelled images"]
    else:
        lines = [f"  scores                         not calibrated: {scores.reason}"]
    for found in (scores.fitted, scores.checked):
        if found is not None:
            after = "" if found.ece_after is None else f" -> {100 * found.ece_after:.2f} %"
            lines.append(
                f"  expected calibration error     {100 * found.ece_before:.2f} %{after} on {found.images} images of "
                f"{found.set}"
            )
    answered = scores.checked or scores.fitted
    line = f"  unknown below                  {scores.threshold:.2f}"
    if answered is not None:
        right = "" if answered.right is None else f", {100 * answered.right:.1f} % of them right"
        line += f": {100 * answered.answered:.1f} % of {answered.set} are answered{right}"
    lines.append(line)
    if scores.doubt:
        lines.append(f"  but {scores.doubt}")
    return lines


def _table(result: "Export") -> list[str]:
    """Show the candidates, and the layers whose quantization harms most."""
    lines = []
    if result.candidates:
        lines.append(f"{'candidate':<64} {'MB':>7} {'ms':>8} {'agreement':>10} {'drift':>8}")
    for place, row in enumerate(result.candidates):
        mark = ">" if place == result.chosen else "*" if row.best else " "
        time = "-" if row.latency_ms is None else f"{row.latency_ms:.2f}"
        lines.append(
            f"{mark} {row.recipe:<62} {row.bytes / 1e6:7.2f} {time:>8} {100 * row.comparison.agreement:8.2f} % "
            f"{row.comparison.drift:8.3g}"
        )
        if row.problem:
            lines.append(f"    {row.problem}")
    if result.candidates:
        lines.append("> is shipped, * is beaten by no other in size, time, agreement and drift")
    measured = [layer for layer in result.sensitivities if layer.without is not None]
    if measured:
        lines.append("layers whose quantization harms most (drift without it, and with it alone):")
    for layer in measured[:_HARMFUL]:
        alone = "not measured" if layer.alone is None else f"{layer.alone:.3g}"
        lines.append(f"  {layer.layer} ({layer.shape[0]} -> {layer.shape[1]}): {layer.without:.3g}, {alone}")
    return lines
