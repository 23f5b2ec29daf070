"""Opens an ONNX Runtime session on the provider that was asked for, and on no other, and proves that it runs there."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime

from .cores import usable_cores
from .errors import ModelError, ProviderError
from .metadata import PREFIX
from .model_file import read_properties
from .opening import Compiling, Wish, create, input_of, prove, refusal, where
from .placement import Placed
from .providers import COMPILED, CONTEXT, PROVIDERS, Setup, Use, keeps, set_up
from .shelf import Shelf, in_use, shelf
from .tuning import tuned_threads

__all__ = ["PROVIDERS", "Started", "open_session", "recipe_of", "refusal", "start_session"]

# What the processor's own graph is called in its folder, once it has been rewritten for this very machine.
_GRAPH = "graph.onnx"

# A provider's options that its compiled graph does not depend on.
_NOT_COMPILED = ("num_of_threads",)


# Named tuples here and in what else every start imports: a dataclass takes ten times as long to make, half a
# millisecond, and there are many.
class Started(NamedTuple):
    """A session, and what became of the wish for a provider.

    Attributes:
        session: It is open.
        provider: The short name of the provider that runs it.
        threads: How many threads compute one answer.
        largest_batch: The largest that the provider takes; None for any.
        refused: Why the providers that the file was made for do not run it, each a provider and a sentence.
        notes: What else a user should know: sentences without their subject, the file.
        placed: Gives where the nodes run, by provider and operator; found out when it is called.
        kept: The folder of the device's cache that holds what was compiled for it; None where nothing is kept.
        compiled: Whether that was made just now.
    """

    session: onnxruntime.InferenceSession
    provider: str
    threads: int
    largest_batch: int | None
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    placed: Callable[[], Placed]
    kept: Path | None
    compiled: bool


def open_session(
    model: Path | bytes,
    *,
    name: str,
    provider: str = "cpu",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
    spinning: bool = True,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Open a session, as `start_session` does, without a cache.

    Args:
        model: The file's path or bytes.
        name: The file's name, for the errors.
        provider: A key of `PROVIDERS`, or ``auto``.
        threads: How many threads compute one answer; as many as the process has cores unless given.
        options: The provider's own options, that win over those that suit a ViT.
        spinning: Whether threads that wait for work keep their cores busy meanwhile.
        profile: How the file's name begins in which ONNX Runtime notes the time of each operator.

    Raises:
        ModelError: The file is no ONNX model that this ONNX Runtime can run.
        ProviderError: The provider is unknown, missing, does not start, or left the graph to another.
    """
    return start_session(
        model,
        name=name,
        provider=provider,
        threads=threads,
        options=options,
        spinning=spinning,
        profile=profile,
    ).session


def start_session(
    model: Path | bytes,
    *,
    name: str,
    provider: str = "auto",
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
    spinning: bool = True,
    profile: Path | None = None,
    seal: str | None = None,
    keep: bool = False,
    compiling: Compiling = nullcontext,
) -> Started:
    """Open a session on a provider, or on the best that works among those that the file was made for.

    Args:
        model: The file's path or bytes.
        name: The file's name, for the errors.
        provider: A key of `PROVIDERS`, or ``auto``: those that the file was made for and checked on, else the
            processor.
        threads: How many threads compute one answer. Unless given, as many as this device was tuned to for the file
            (see `tuning`), or as many as the process has cores.
        options: The provider's own options, that win over those that suit a ViT.
        spinning: Whether threads that wait for work keep their cores busy meanwhile: a little faster on a machine
            with nothing else to do, a waste where answers come now and then.
        profile: How the file's name begins in which ONNX Runtime notes the time of each operator.
        seal: The file's seal, by which what is compiled of it is kept in the device's cache; None keeps nothing.
        keep: Whether the processor's graph is to be kept there too, as `vit-edge compile` does; once it is, it is
            used, and made anew where it does not fit any more.
        compiling: Entered while a provider compiles the graph, which can take minutes.

    Raises:
        ModelError: The file is no ONNX model that this ONNX Runtime can run.
        ProviderError: The provider is unknown, missing, does not start, or left the graph to another.
    """
    if provider not in ("auto", *PROVIDERS):
        known = ", ".join(("auto", *PROVIDERS))
        raise ProviderError(f"there is no provider {provider!r}; choose one of {known}")
    if threads is not None and threads < 1:
        raise ProviderError(f"expected at least 1 thread, got {threads}; leave it out to use every core")
    if options and provider == "auto":
        raise ProviderError(
            f"options belong to one provider, got {', '.join(options)} for auto; name the provider, or leave them out"
        )
    wish = Wish(
        model,
        name,
        threads,
        options or {},
        spinning,
        recipe_of(model),
        profile,
        seal,
        keep,
        compiling,
    )
    if provider != "auto":
        return _start(wish, provider)
    refused: list[tuple[str, str]] = []
    for candidate in _made_for(wish.recipe):
        try:
            return _start(wish, candidate)._replace(refused=tuple(refused))
        except ProviderError as error:
            refused.append((candidate, str(error)))
    return _start(wish, "cpu")._replace(refused=tuple(refused))


def recipe_of(model: Path | bytes) -> Mapping[str, Any]:
    """Give what a file says of how it was made; nothing where it does not say, or not well."""
    try:
        recipe = json.loads(read_properties(model).get(f"{PREFIX}recipe", "{}"))
    except (ValueError, RecursionError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _made_for(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Give the providers that a file was made for or measured on, the best first; the processor is left out."""
    # A target is a provider, or one with more of it said: cpu-avx2.
    target = str(recipe.get("target")).partition("-")[0]
    measured_on = recipe.get("provider")
    found = [target, *(short for short, long in PROVIDERS.items() if long == measured_on)]
    yield from (name for name in dict.fromkeys(found) if name in PROVIDERS and name != "cpu")


def _start(wish: Wish, provider: str) -> Started:
    if provider != "cpu":
        from .probe import missing, preload  # the processor's is always there, and starts sooner without

        if reason := missing(provider):
            raise ProviderError(reason)
        preload(provider)
    threads = wish.threads
    if threads is None:
        threads = (wish.seal and tuned_threads(wish.seal, provider)) or usable_cores()
    use = Use(
        precision=str(wish.recipe.get("precision", "float32")),
        own_recipe=provider in _made_for(wish.recipe),
        threads=threads,
    )
    opened = _on_processor(wish, use) if provider == "cpu" else _elsewhere(wish, provider, use)

    # An ONNX Runtime that does not tell opens the graph once more, which a provider that compiles takes long for.
    @cache
    def nodes() -> Placed:
        return opened.placed or where(wish, opened.session, provider, opened.setup)

    notes: tuple[str, ...] = ()
    if provider != "cpu":
        notes = tuple(prove(wish.name, provider, nodes()))
    return Started(
        opened.session,
        provider,
        threads,
        opened.setup.largest_batch,
        (),
        notes,
        nodes,
        opened.kept,
        opened.compiled,
    )


class _Opened(NamedTuple):
    """A session, how it was opened, and what became of the cache, as `Started` tells it.

    *placed* is where its nodes run, if that was found out already.
    """

    session: onnxruntime.InferenceSession
    setup: Setup
    kept: Path | None = None
    compiled: bool = False
    placed: Placed | None = None


def _on_processor(wish: Wish, use: Use) -> _Opened:
    setup = set_up("cpu", use, wish.given)
    place = None
    # What nobody asked for takes no room on the device.
    if wish.seal is not None and (wish.keep or in_use(wish.seal, "cpu")):
        place = shelf(wish.seal, "cpu", {})
    if place is None:
        return _Opened(create(wish, wish.model, "cpu", setup), setup)
    folder = place.found()
    if folder is not None:
        try:
            return _Opened(create(wish, folder / _GRAPH, "cpu", setup, optimized=True), setup, folder)
        except ModelError as error:
            _log_anew(wish, error)
    folder = place.new_folder()
    if folder is None:
        return _Opened(create(wish, wish.model, "cpu", setup), setup)
    with _dropped_on_error(place, folder):
        session = create(wish, wish.model, "cpu", setup, keep=folder / _GRAPH)
    return _Opened(session, setup, folder if place.keep(folder) else None, compiled=True)


def _elsewhere(wish: Wish, provider: str, use: Use) -> _Opened:
    if provider == "tensorrt":
        use = use._replace(input=input_of(wish))
    bare = set_up(provider, use, wish.given)
    place = None
    if wish.seal is not None and keeps(provider, bare.options):
        tied = {key: value for key, value in bare.options.items() if key not in _NOT_COMPILED}
        place = shelf(wish.seal, provider, tied)
    folder = place.found() if place is not None else None
    if folder is not None:
        assert place is not None
        # It was compiled here by this very ONNX Runtime: the provider does start.
        try:
            return _from_cache(wish, provider, use, folder)
        except (ModelError, ProviderError) as error:
            _log_anew(wish, error)
            place.forget()
    from .probe import problem

    # What depends on the graph or keeps files is not for the graph of one node that is tried first.
    trial = {key: value for key, value in wish.given.items() if not key.startswith("trt_profile_")}
    if reason := problem(provider, set_up(provider, use._replace(input=None), trial).options, trial):
        raise ProviderError(reason)
    if provider not in COMPILED:
        return _Opened(create(wish, wish.model, provider, bare), bare)
    return _compile(wish, provider, use, place)


def _from_cache(wish: Wish, provider: str, use: Use, folder: Path) -> _Opened:
    setup = set_up(provider, use._replace(folder=folder), wish.given)
    model = wish.model
    if provider == "qnn":
        # The compiled graph is a model file in the place of the one that it was made from.
        model, setup = folder / CONTEXT, setup._replace(entries={})
    return _Opened(create(wish, model, provider, setup), setup, folder)


def _compile(wish: Wish, provider: str, use: Use, place: Shelf | None) -> _Opened:
    folder = place.new_folder() if place is not None else None
    setup = set_up(provider, use._replace(folder=folder), wish.given)
    begun = time.monotonic()
    with _dropped_on_error(place, folder):
        with wish.compiling(f"compiling {wish.name} for {provider}"):
            session = create(wish, wish.model, provider, setup)
        nodes = where(wish, session, provider, setup)
        # What is not to be used is not worth its room.
        for _ in prove(wish.name, provider, nodes):
            pass
    _log("compiled %s for %s in %.1f s", wish.name, provider, time.monotonic() - begun)
    kept = place is not None and folder is not None and place.keep(folder)
    return _Opened(session, setup, folder if kept else None, compiled=True, placed=nodes)


@contextmanager
def _dropped_on_error(place: Shelf | None, folder: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if place is not None and folder is not None:
            place.drop(folder)
        raise


def _log_anew(wish: Wish, error: Exception) -> None:
    _log("what was compiled of %s does not load (%s); it is compiled anew", wish.name, error)


def _log(text: str, *values: Any) -> None:
    import logging  # most starts have nothing to tell, and are quicker without

    logging.getLogger(__name__).info(text, *values)
