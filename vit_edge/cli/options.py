"""Options that several commands share, and the reading of their values."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError

Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="A text file with one label a line, in the order of the outputs; for a checkpoint that has none.",
    ),
]
Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        help="How images were prepared for this network, as in "
        "resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5; for a checkpoint that does not say.",
    ),
]
Heads = Annotated[
    int | None,
    typer.Option(
        "--heads",
        min=1,
        help="The number of attention heads, for a bare state dict of a size that has no name.",
    ),
]
MinAgreement = Annotated[
    float | None,
    typer.Option(
        "--min-agreement", min=0.0, max=1.0, help="The least share of images with torch's answer, 0..1."
    ),
]
MaxDrift = Annotated[
    float | None,
    typer.Option(
        "--max-drift", min=0.0, help="The largest mean distance of the logits, relative to their spread."
    ),
]
MaxDrop = Annotated[
    float | None, typer.Option("--max-drop", help="The largest loss of top-1 accuracy, in points.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Provider = Annotated[
    str,
    typer.Option(
        help="The execution provider that the model runs on; auto takes the best that works here among those that the "
        "file was made for, else the CPU."
    ),
]
ProviderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--provider-option",
        metavar="KEY=VALUE",
        help="An option of ONNX Runtime's provider, which wins over the one that suits a ViT; may be given again.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads for one answer; as many as there are cores unless given."),
]


def provider_options(given: list[str] | None) -> dict[str, str]:
    """Read the values of ``--provider-option``.

    Raises:
        OptionError: One is not KEY=VALUE, or a key comes twice.
    """
    options: dict[str, str] = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        if not key or not sign:
            raise OptionError(
                f"expected --provider-option KEY=VALUE, as in device_type=GPU, got {text!r}; write both, without spaces"
            )
        if key in options:
            raise OptionError(f"--provider-option {key} was given twice; leave one out")
        options[key] = value
    return options
