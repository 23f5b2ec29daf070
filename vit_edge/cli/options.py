"""Options that several commands share, and the reading of their values."""

from pathlib import Path
from typing import Annotated

import typer

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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
