"""``vit-edge export``: from a checkpoint to one verified ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as shared
from .load import complete, given
from .progress import Stages, note

if TYPE_CHECKING:
    from ..export import Export, Step


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A .safetensors, .pth or .npz file, a folder saved by timm or transformers, timm:NAME, or hf:REPO."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images that choose and fit; those of your own domain, without labels."
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
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Turn a checkpoint into one ONNX file, quantized to INT8 and checked against torch after every step.

    Bounds that are not given are, for int8: agreement at least 0.95, drift at most 0.15, drop at most 1 point; for
    float16: 0.99, 0.02, 0.5; for float32: 0.999, 0.0001, 0.1.
    """
    from ..checkpoint import load_checkpoint
    from ..errors import OptionError
    from ..export import Export, Options, Source, Step, Tick, run

    if dynamic_batch and batch is not None:
        raise OptionError("--dynamic-batch takes any batch size and --batch one; give one of the two")
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
        force=force,
    )
    given_labels, given_preprocessing = given(labels, preprocess)
    if output.exists() and not force:
        raise OptionError(f"{output} exists; give --force to replace it, or another name with -o")
    loaded = load_checkpoint(
        checkpoint, labels=given_labels, preprocessing=given_preprocessing, heads=heads, image_size=image_size
    )
    known_labels, known_preprocessing = complete(loaded)
    events = run(
        loaded.model,
        labels=known_labels,
        preprocessing=known_preprocessing,
        output=output,
        source=Source(Path(checkpoint).name, loaded.sha256, loaded.config.to_dict()),
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
                result = event
    typer.echo(_summary(result))


def _line(step: "Step") -> str:
    name = step.name if len(step.name) <= 60 else f"{step.name[:57]}..."
    line = f"  {name:<60} {step.seconds:6.1f} s {step.bytes / 1e6:8.2f} MB"
    if step.comparison is not None:
        line += f"  agreement {100 * step.comparison.agreement:6.2f} %  drift {step.comparison.drift:.2g}"
    return line + (f"\n    left out: {step.problem}" if step.problem else "")


def _summary(result: "Export") -> str:
    final: Any = result.comparison
    lines = [
        f"{result.path}: {result.precision}, {result.bytes / 1e6:.2f} MB",
        f"  agreement with torch  {100 * final.agreement:.2f} % of {final.images} images of {result.checked_on}"
        f" ({len(final.flips)} differ)",
        f"  logit drift           {final.drift:.3g} relative, {final.max_abs_drift:.3g} at most",
    ]
    if final.accuracy is not None:
        low, high = final.accuracy.drop_interval
        lines.append(
            f"  top-1                 {100 * final.accuracy.reference_top1:.2f} % -> "
            f"{100 * final.accuracy.model_top1:.2f} %, drop {final.accuracy.drop:.2f} points "
            f"(95 % interval {low:.2f} to {high:.2f})"
        )
    if result.batched_agreement is not None:
        lines.append(
            f"  in batches of 5       {100 * result.batched_agreement:.2f} % keep the answer that they get alone"
        )
    if result.latency_ms is not None and result.float32_ms is not None:
        times = f"{result.latency_ms:.2f} ms, {result.float32_ms:.2f} ms in float32"
        lines.append(f"  one answer            {times}, on this machine")
    if result.reason:
        lines.append(f"  not int8, since {result.reason}")
    return "\n".join(lines)
