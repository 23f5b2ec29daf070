"""``vit-edge verify``: does this device give torch's answers? The pictures to tell by are in the file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options as shared
from .device import open_classifier
from .progress import progress

if TYPE_CHECKING:
    from ..runtime.capsule import Capsule
    from ..runtime.replay import Replay

_TITLES = {"decode": "decode", "resize": "resize", "inference": "inference", "whole": "file to answer"}


def verify(
    model: Annotated[Path, typer.Argument(help="A file made by `vit-edge export`.")],
    provider: shared.Provider = "auto",
    provider_option: shared.ProviderOptions = None,
    threads: shared.Threads = None,
    max_drift: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="The largest drift of the logits that passes; 1.5 times that which the file had when it was made, "
            "unless given.",
        ),
    ] = None,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Replay the pictures that travel in the file, and say whether this device gives torch's answers.

    Decode, resize and inference are compared apart. Exit status 1, and the stage at fault, where it does not.
    """
    from ..errors import ModelError
    from ..runtime.capsule import read_capsule
    from ..runtime.replay import Replay, replay

    own = shared.provider_options(provider_option)
    with open_classifier(model, provider, threads, provider_options=own, quiet=quiet) as classifier:
        capsule = read_capsule(model, str(model))
        if capsule is None:
            raise ModelError(
                f"{model} carries no capsule; export it anew without `--capsule 0`, or compare it on images with "
                "`vit-edge check`"
            )
        with progress("verifying", total=len(capsule.pictures), unit="pictures", quiet=quiet) as advance:
            for event in replay(classifier, capsule, max_drift=max_drift):
                if isinstance(event, Replay):
                    found = event
                else:
                    advance()
        used = classifier.provider
    if as_json:
        about = {"file": str(model), "provider": used, "reference": capsule.reference, "set": capsule.set}
        typer.echo(json.dumps(about | found.to_dict(), ensure_ascii=False))
    else:
        typer.echo(_page(model, used, capsule, found))
    if not found.passed:
        raise typer.Exit(1)


def _page(model: Path, provider: str, capsule: "Capsule", found: "Replay") -> str:
    # As the file names it: "torch float32", or "the float graph".
    whose = f"{capsule.reference.removesuffix(' float32')}'s"
    lines = [
        f"{model} on the provider {provider}: {len(capsule.pictures)} pictures, {capsule.set}",
        *(
            f"{_TITLES[stage.name]:<16} {'ok   ' if stage.passed else 'FAULT'} {stage.finding}"
            for stage in found.stages
        ),
        f"this device gives {whose} answers"
        if found.passed
        else f"this device does NOT give {whose} answers: {found.fault} is at fault",
    ]
    return "\n".join(lines)
