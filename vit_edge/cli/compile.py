"""``vit-edge compile``: a model file made ready for this device, so that it starts sooner."""

import json
from pathlib import Path
from typing import Annotated

import typer

from . import options as shared
from .progress import note, working


def compile_(
    model: Annotated[Path, typer.Argument(help="A file made by `vit-edge export`.")],
    provider: shared.Provider = "auto",
    provider_option: shared.ProviderOptions = None,
    threads: shared.Threads = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Remove what was compiled of the file instead, for all providers."),
    ] = False,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Compile a model file for this device, into the device's cache; the file stays as it is.

    Later starts of every command and program then take less time. What is kept is tied to the file, the version of
    ONNX Runtime, the processor and the provider's options; where one of them changes, the next start makes it anew.
    """
    from functools import partial

    from ..runtime.compile import compile_model, forget_model

    if forget:
        there = forget_model(model)
        note(f"{'removed what was compiled of' if there else 'nothing was compiled of'} {model}")
        return
    own = shared.provider_options(provider_option)
    found = compile_model(
        model,
        provider=provider,
        threads=threads,
        provider_options=own,
        compiling=partial(working, quiet=quiet),
    )
    if as_json:
        typer.echo(json.dumps({"file": str(model)} | found.to_dict()))
        return
    before = "it was compiled before" if found.first_ms is None else f"{found.first_ms:.0f} ms without it"
    rows = [
        ("compiled", f"{model} for {found.provider}"),
        ("kept in", f"{found.folder}, {found.bytes / 1e6:.2f} MB"),
        ("start", f"{found.start_ms:.0f} ms; {before}"),
    ]
    typer.echo("\n".join(f"{name:<12} {value}" for name, value in rows))
