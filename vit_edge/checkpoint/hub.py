"""Models by name, through huggingface_hub and its cache."""

from contextlib import suppress
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from ..errors import CheckpointError
from .folder import INDEX, WEIGHTS, shards


def fetch(repository: str, *, cache: Path | None = None) -> Path:
    """Bring a model's config and weights into the cache, only the files that are needed.

    Args:
        repository: ``owner/name`` of a model on the hub.
        cache: The cache's folder; None takes huggingface_hub's, which ``HF_HUB_CACHE`` sets.

    Returns:
        The folder in the cache that now holds them, all of one revision.

    Raises:
        CheckpointError: There is no such model, it needs consent, or no network reaches it and the cache
            lacks it.
    """
    offline = _is_offline(repository)
    config = _file(repository, "config.json", cache, offline)
    if config is None:
        raise CheckpointError("holds no config.json, so it is no model of timm or transformers; give another")
    # The folder is named after the revision: were the model updated meanwhile, its files would not match.
    revision = config.parent.name
    missing = None
    with suppress(_NotCachedError):  # timm's models have none, and nothing says so without a network
        _file(repository, "preprocessor_config.json", cache, offline, revision)
    for name in WEIGHTS:
        for wanted in (name, f"{name}{INDEX}"):
            try:
                path = _file(repository, wanted, cache, offline, revision)
            except _NotCachedError as error:
                missing = missing or error
                continue
            if path is not None:
                for shard in shards(path) if wanted.endswith(INDEX) else ():
                    _file(repository, shard, cache, offline, revision)
                return config.parent
    raise missing or CheckpointError(f"holds no weights; expected {' or '.join(WEIGHTS)}; give another model")


class _NotCachedError(CheckpointError):
    """The file is not in the cache, and there is no network to fetch it."""


def _is_offline(repository: str) -> bool:
    """Ask once, without the half minute of retries that each download would make on its own."""
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json"))
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return False
    except Exception:  # the network's own errors, whose types changed over huggingface_hub's versions
        return True
    return False


def _file(
    repository: str, name: str, cache: Path | None, offline: bool, revision: str | None = None
) -> Path | None:
    """Fetch one file; None where the model has no such file."""
    try:
        path = hf_hub_download(repository, name, cache_dir=cache, revision=revision, local_files_only=offline)
    except LocalEntryNotFoundError as error:
        raise _NotCachedError(
            f"no network: the model hub cannot be reached, and {name} is not in its cache; "
            "give the path of a downloaded folder or file instead"
        ) from error
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise CheckpointError(
            "needs its owner's consent; ask for it on the model's page and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            "no such model on the hub; check the name, or log in for a private one"
        ) from error
    except HFValidationError as error:
        raise CheckpointError("expected a name such as timm:NAME or hf:OWNER/NAME; check it") from error
    except Exception as error:  # as in _is_offline
        raise CheckpointError(
            f"{name} could not be fetched ({type(error).__name__}); try again, or give the path of a "
            "downloaded folder or file"
        ) from error
    return Path(path)
