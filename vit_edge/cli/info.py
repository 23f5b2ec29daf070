"""``vit-edge info`` and ``vit-edge models``: what a file says of itself, and which networks there are."""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as shared

if TYPE_CHECKING:
    from ..runtime.classifier import Classifier


_INPUTS = {
    "float32": "(batch, 3, height, width) float32, RGB planes, normalised",
    "uint8": "(batch, height, width, 3) uint8, RGB, 0..255, as a camera gives it",
}


def info(
    model: Annotated[Path, typer.Argument(help="A file made by `vit-edge export`.")],
    as_json: shared.Json = False,
) -> None:
    """Show what a model file says of itself: labels, preprocessing, origin, recipe, and its proof."""
    from ..runtime.classifier import Classifier

    # The notes are on the page; without any handler Python would print the log's copy as well.
    logging.getLogger(Classifier.__module__).addHandler(logging.NullHandler())
    with Classifier(model, "cpu", threads=1) as classifier:
        values = _values(classifier, model)
    typer.echo(json.dumps(values) if as_json else _page(values))


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the networks that `vit-edge train --model NAME` knows."""
    from ..models import CATALOG

    if not as_json:
        typer.echo(
            f"{'name':<24}{'image':>9}{'patch':>7}{'width':>7}{'depth':>7}{'heads':>7}{'parameters':>13}"
        )
    for name, config in CATALOG.items():
        height, width = config.image_size
        if as_json:
            typer.echo(json.dumps({"name": name, **config.to_dict(), "parameters": config.parameters}))
        else:
            typer.echo(
                f"{name:<24}{f'{height}x{width}':>9}{config.patch_size:>7}{config.width:>7}{config.depth:>7}"
                f"{config.heads:>7}{config.parameters:>13,}"
            )


def about(classifier: "Classifier", path: Path) -> dict[str, list[str]]:
    """Give what a file says of itself by title, as `vit-edge info` shows it; for the live page."""
    titled: dict[str, list[str]] = {}
    for title, text in _rows(_values(classifier, path)):
        titled.setdefault(title[:1].upper() + title[1:], []).append(text)
    return titled


def _values(classifier: "Classifier", path: Path) -> dict[str, Any]:
    from ..runtime.capsule import KEY
    from ..runtime.model_file import read_property

    capsule = read_property(path, KEY)
    metadata = classifier.metadata
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "labels": [str(label) for label in classifier.labels.items],
        "preprocess": str(classifier.preprocessing),
        "input": classifier.input,
        "batch": classifier.batch or "any",
        "source": dict(metadata.source),
        "recipe": dict(metadata.recipe),
        "proof": dict(metadata.proof),
        "scores": dict(metadata.scores),
        "capsule": None if capsule is None else _capsule(classifier.name, capsule),
        "notes": list(classifier.notes),
    }


def _capsule(name: str, text: str) -> dict[str, Any]:
    from ..runtime.capsule import Capsule

    capsule = Capsule.from_text(text, name)
    return {"set": capsule.set, "pictures": len(capsule.pictures), "bytes": len(text.encode())}


def _page(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name:<19} {value}" for name, value in _rows(values))


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    labels = values["labels"]
    shown = "; ".join(labels[:3]) + (f"; … {labels[-1]}" if len(labels) > 3 else "")
    return [
        ("file", f"{values['file']}, {values['bytes'] / 1e6:.2f} MB, sealed and sound"),
        ("labels", f"{len(labels)}: {shown}"),
        ("preprocessing", values["preprocess"]),
        ("input", _INPUTS[values["input"]]),
        ("batch", str(values["batch"])),
        *_source_rows(values["source"]),
        *_recipe_rows(values["recipe"]),
        *_proof_rows(values["proof"]),
        *_score_rows(values["scores"]),
        *_capsule_rows(values["capsule"]),
        *(("on this device", note) for note in values["notes"]),
    ]


# What a file does not say of its origin, recipe and proof (schema 1 leaves all of it open) has no row.
def _source_rows(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "name" in source:
        yield "made from", f"{source['name']}, SHA-256 {str(source.get('sha256'))[:16]}…"
    network = source.get("network") or {}
    if sizes := [
        f"{name} {network[key]}"
        for name, key in (("width", "width"), ("depth", "depth"), ("heads", "heads"), ("patch", "patch_size"))
        if key in network
    ]:
        yield "network", ", ".join(sizes)


def _recipe_rows(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "precision" in recipe:
        yield "precision", recipe["precision"]
    if "steps" in recipe:
        yield "steps", "; ".join(recipe["steps"])
    if "target" in recipe:
        yield "made for", f"{recipe['target']} ({recipe.get('provider')})"
    if "processor" in recipe:
        machine = recipe["processor"]
        name = machine.get("name") or machine.get("architecture")
        yield "measured on", f"{name} ({', '.join(machine.get('features', ()))})"
    if "oldest_onnxruntime" in recipe:
        yield "runs on", f"ONNX Runtime {recipe['oldest_onnxruntime']} or newer, opset {recipe.get('opset')}"


def _capsule_rows(capsule: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if capsule is not None:
        size = f"{capsule['bytes'] / 1e6:.2f} MB"
        yield (
            "capsule",
            f"{capsule['pictures']} pictures, {capsule['set']}, {size}; `vit-edge verify` replays them",
        )


def _proof_rows(proof: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for title, key in (("proof, calibration", "calibration"), ("proof, check", "check")):
        if key in proof:
            yield title, _proof(proof[key])
    if "batched" in proof:
        share = 100 * proof["batched"]["agreement_with_alone"]
        yield "in a batch", f"{share:.2f} % in batches of {proof['batched']['batch']} answer as they do alone"
    if "latency_ms" in proof:
        times = proof["latency_ms"]
        both = f"{times['int8']:.2f} ms, {times['float32']:.2f} ms in float32"
        yield "one answer took", f"{both}, on {times['threads']} threads there"
    if "not_int8" in proof:
        yield "not int8, since", proof["not_int8"]


def _score_rows(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if scores.get("temperature") is None:
        reason = f": {scores['not_calibrated']}" if "not_calibrated" in scores else ""
        yield "scores", f"not calibrated{reason}"
    else:
        low, high = scores.get("temperature_interval", (scores["temperature"],) * 2)
        yield "scores", f"calibrated: temperature {scores['temperature']:.3f} ({low:.2f} to {high:.2f})"
    for found in (scores, scores.get("check", {})):
        if "ece_before" in found:
            after = f" -> {100 * found['ece_after']:.2f} %" if "ece_after" in found else ""
            yield (
                "calibration error",
                f"{100 * found['ece_before']:.2f} %{after} on {found['images']} images of {found['set']}",
            )
    if scores.get("threshold") is not None:
        yield "unknown below", f"{scores['threshold']:.2f}"
    if "doubt" in scores:
        yield "but", scores["doubt"]


def _proof(found: Mapping[str, Any]) -> str:
    line = (
        f"{100 * found['agreement']:.2f} % of {found['images']} images of {found['set']} answered as torch does, "
        f"logit drift {found['drift']:.3g}"
    )
    if "drop" in found:
        line += f", top-1 drop {found['drop']:.2f} points"
    return line
