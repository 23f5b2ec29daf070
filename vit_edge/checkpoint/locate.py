"""From what the user gave to the files of one checkpoint: a file, a folder, or a name on the model hub."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .description import Description
from .folder import WEIGHTS, read_json, weights_in
from .hub import fetch
from .timm_config import describe_timm
from .transformers_config import describe_transformers


@dataclass(frozen=True)
class Located:
    """The files of weights, in order, and what config files beside them tell."""

    weights: tuple[Path, ...]
    description: Description | None


def locate(source: str | Path) -> Located:
    """Find the files of a checkpoint.

    Raises:
        CheckpointError: There is nothing there, or config files of a model that is not supported.
        OSError: The system does not let it be read.
    """
    text = str(source)
    if text.startswith("timm:"):
        return _from_folder(fetch(f"timm/{text.removeprefix('timm:')}"))
    if text.startswith("hf:"):
        return _from_folder(fetch(text.removeprefix("hf:")))
    path = Path(source)
    if path.is_dir():
        return _from_folder(path)
    if not path.exists():
        raise CheckpointError(
            "no such file or folder; check the path, or name a model as timm:NAME or hf:REPO"
        )
    # A file that a library saved beside its config is as good as the folder.
    described = path.name in WEIGHTS and (path.parent / "config.json").is_file()
    return Located((path,), _describe(path.parent) if described else None)


def _from_folder(folder: Path) -> Located:
    if not (folder / "config.json").is_file():
        files = sorted(
            p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".pth", ".pt", ".bin", ".npz")
        )
        hint = f"give the file itself, such as {folder / files[0]}" if files else "check the path"
        raise CheckpointError(
            f"expected a folder with a config.json, as timm and transformers save it; {hint}"
        )
    description = _describe(folder)
    if description is None:
        raise CheckpointError(
            "expected a config.json of timm or transformers, got another program's; give a file instead"
        )
    return Located(weights_in(folder), description)


def _describe(folder: Path) -> Description | None:
    """Read what timm or transformers wrote; None where the config is another program's."""
    config = read_json(folder / "config.json")
    processor = folder / "preprocessor_config.json"
    try:
        if "model_type" in config:
            return describe_transformers(config, read_json(processor) if processor.is_file() else None)
        if "architecture" in config:
            return describe_timm(config)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"its config files are damaged ({error!r}); download or save them again"
        ) from error
    return None
