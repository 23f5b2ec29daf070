"""Opens an ONNX Runtime session on the provider that was asked for, and on no other, and proves that it runs there."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime

from .compiled import Shelf, in_use, shelf
from .cores import usable_cores
from .errors import ModelError, ProviderError
from .metadata import PREFIX
from .model_file import read_properties
from .placement import RECORD, Placed, placed, products
from .probe import missing, preload, problem, sentence
from .providers import COMPILED, CONTEXT, PROVIDERS, Setup, Use, keeps, set_up
from .tuning import tuned_threads

__all__ = ["PROVIDERS", "Started", "open_session", "recipe_of", "refusal", "start_session"]

_LOG = logging.getLogger(__name__)

# Only errors: ONNX Runtime would write its warnings to the user's terminal.
_QUIET = 3

# What the processor's own graph is called in its folder, once it has been rewritten for this very machine.
_GRAPH = "graph.onnx"

# A provider's options that its compiled graph does not depend on.
_NOT_COMPILED = ("num_of_threads",)

# Operators that a sentence names; more of them say nothing more.
_NAMED = 4

Compiling = Callable[[str], AbstractContextManager[Any]]
"""Entered while a provider compiles a graph, with what is being done as its argument: shows that something happens."""


@dataclass(frozen=True, slots=True)
class Started:
    """A session, and what became of the wish for a provider.

    Attributes:
        session: It is open.
        provider: The short name of the provider that runs it.
        threads: How many threads compute one answer.
        largest_batch: The largest that the provider takes; None for any.
        refused: Why the providers that the file was made for do not run it, each a provider and a sentence.
        notes: What else a user should know: sentences without their subject, the file.
        placed: Gives where the nodes run, by provider and operator; found out when it is called.
    """

    session: onnxruntime.InferenceSession
    provider: str
    threads: int
    largest_batch: int | None
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    placed: Callable[[], Placed]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What `start_session` was asked for, beside the provider."""

    model: Path | bytes
    name: str
    threads: int | None
    given: Mapping[str, str]
    spinning: bool
    recipe: Mapping[str, Any]
    profile: Path | None
    seal: str | None
    compiling: Compiling


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
    wish = _Wish(
        model,
        name,
        threads,
        options or {},
        spinning,
        recipe_of(model),
        profile,
        seal,
        compiling,
    )
    if provider != "auto":
        return _start(wish, provider)
    refused: list[tuple[str, str]] = []
    for candidate in _made_for(wish.recipe):
        try:
            return replace(_start(wish, candidate), refused=tuple(refused))
        except ProviderError as error:
            refused.append((candidate, str(error)))
    return replace(_start(wish, "cpu"), refused=tuple(refused))


def recipe_of(model: Path | bytes) -> Mapping[str, Any]:
    """Give what a file says of how it was made; nothing where it does not say, or not well."""
    try:
        recipe = json.loads(read_properties(model).get(f"{PREFIX}recipe", "{}"))
    except (ValueError, RecursionError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def refusal(error: Exception, name: str) -> ModelError:
    """Make one sentence of what ONNX Runtime threw: it cannot load a model, or failed while it ran it."""
    reason = " ".join(str(error).split())
    return ModelError(
        f"ONNX Runtime {onnxruntime.__version__} cannot run {name} ({reason}); update onnxruntime, "
        "or make the file anew with `vit-edge export`"
    )


def _made_for(recipe: Mapping[str, Any]) -> Iterator[str]:
    """Give the providers that a file was made for or measured on, the best first; the processor is left out."""
    # A target is a provider, or one with more of it said: cpu-avx2.
    target = str(recipe.get("target")).partition("-")[0]
    measured_on = recipe.get("provider")
    found = [target, *(short for short, long in PROVIDERS.items() if long == measured_on)]
    yield from (name for name in dict.fromkeys(found) if name in PROVIDERS and name != "cpu")


def _start(wish: _Wish, provider: str) -> Started:
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
    if provider == "cpu":
        session, setup = _open_on_processor(wish, use)
    else:
        session, setup = _open_elsewhere(wish, provider, use)

    def where() -> Placed:
        return _placed(wish, session, provider, setup)

    notes: tuple[str, ...] = ()
    if provider != "cpu":
        notes = tuple(_prove(wish.name, provider, where()))
    return Started(session, provider, threads, setup.largest_batch, (), notes, where)


def _open_on_processor(wish: _Wish, use: Use) -> tuple[onnxruntime.InferenceSession, Setup]:
    setup = set_up("cpu", use, wish.given)
    # Only what `vit-edge compile` was once asked for.
    place = shelf(wish.seal, "cpu", {}) if wish.seal is not None and in_use(wish.seal, "cpu") else None
    if place is None:
        return _create(wish, wish.model, "cpu", setup), setup
    folder = place.found()
    if folder is not None:
        try:
            return _create(wish, folder / _GRAPH, "cpu", setup, optimized=True), setup
        except ModelError as error:
            _LOG.info("what was compiled of %s does not load (%s); it is compiled anew", wish.name, error)
    return compile_for_processor(wish, place, setup), setup


def compile_for_processor(wish: _Wish, place: Shelf, setup: Setup) -> onnxruntime.InferenceSession:
    """Open a session from the file, and keep its graph as ONNX Runtime rewrote it for this processor."""
    folder = place.new_folder()
    if folder is None:
        return _create(wish, wish.model, "cpu", setup)
    try:
        session = _create(wish, wish.model, "cpu", setup, keep=folder / _GRAPH)
    except BaseException:
        place.drop(folder)
        raise
    place.keep(folder)
    return session


def _open_elsewhere(wish: _Wish, provider: str, use: Use) -> tuple[onnxruntime.InferenceSession, Setup]:
    if provider == "tensorrt":
        use = replace(use, input=_input(wish))
    bare = set_up(provider, use, wish.given)
    place = None
    if wish.seal is not None and keeps(provider, bare.options):
        tied = {key: value for key, value in bare.options.items() if key not in _NOT_COMPILED}
        place = shelf(wish.seal, provider, tied)
    folder = place.found() if place is not None else None
    if folder is not None:
        # It was compiled here by this very ONNX Runtime: the provider does start.
        setup = set_up(provider, replace(use, folder=folder), wish.given)
        try:
            if provider == "qnn":
                setup = replace(setup, entries={})
                return _create(wish, folder / CONTEXT, provider, setup), setup
            return _create(wish, wish.model, provider, setup), setup
        except (ModelError, ProviderError) as error:
            _LOG.info("what was compiled of %s does not load (%s); it is compiled anew", wish.name, error)
            assert place is not None
            place.forget()
    # What depends on the graph or keeps files is not for the graph of one node that is tried first.
    trial = {key: value for key, value in wish.given.items() if not key.startswith("trt_profile_")}
    if reason := problem(provider, set_up(provider, replace(use, input=None), trial).options, trial):
        raise ProviderError(reason)
    if provider not in COMPILED:
        return _create(wish, wish.model, provider, bare), bare
    return _compile(wish, provider, use, place)


def _compile(
    wish: _Wish, provider: str, use: Use, place: Shelf | None
) -> tuple[onnxruntime.InferenceSession, Setup]:
    folder = place.new_folder() if place is not None else None
    setup = set_up(provider, replace(use, folder=folder), wish.given)
    begun = time.monotonic()
    try:
        with wish.compiling(f"compiling {wish.name} for {provider}"):
            session = _create(wish, wish.model, provider, setup)
        # What is not to be used is not worth its room.
        for _ in _prove(wish.name, provider, _placed(wish, session, provider, setup)):
            pass
    except BaseException:
        if place is not None and folder is not None:
            place.drop(folder)
        raise
    _LOG.info("compiled %s for %s in %.1f s", wish.name, provider, time.monotonic() - begun)
    if place is not None and folder is not None:
        place.keep(folder)
    return session, setup


def _create(
    wish: _Wish,
    model: Path | bytes,
    provider: str,
    setup: Setup,
    *,
    optimized: bool = False,
    keep: Path | None = None,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    wanted = PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    others = {name: given for name, given in setup.next_best.items() if name in available}
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            _settings(wish, setup, optimized=optimized, keep=keep, profile=profile),
            providers=[wanted, *others],
            provider_options=[dict(setup.options), *map(dict, others.values())],
            # Else ONNX Runtime would print a provider's failure and go on with the processor.
            enable_fallback=0,
        )
    # ONNX Runtime's exceptions share no base but this one.
    except Exception as error:
        if provider == "cpu":
            raise refusal(error, wish.name) from error
        # Whose fault it is the processor's provider tells.
        _create(wish, wish.model, "cpu", Setup({}, 1))
        raise ProviderError(
            f"the provider {provider} does not take {wish.name} ({sentence(str(error))}); {_advice(provider)}"
        ) from error
    if session.get_providers()[0] != wanted:
        reason = problem(provider, setup.options, wish.given) or (
            f"ONNX Runtime left the provider {provider} for {session.get_providers()[0]} and gives no reason; "
            "mend its installation, or choose another provider"
        )
        raise ProviderError(reason)
    return session


def _settings(
    wish: _Wish, setup: Setup, *, optimized: bool, keep: Path | None, profile: Path | None
) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _QUIET
    settings.intra_op_num_threads = setup.session_threads
    settings.add_session_config_entry(*RECORD)
    for key, value in setup.entries.items():
        settings.add_session_config_entry(key, value)
    if not wish.spinning or setup.spinning is False:
        for kind in ("intra_op", "inter_op"):
            settings.add_session_config_entry(f"session.{kind}.allow_spinning", "0")
    if setup.one_batch:
        settings.add_free_dimension_override_by_name("batch", 1)
    if setup.in_order:
        settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        settings.enable_mem_pattern = False
    if optimized:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if keep is not None:
        settings.optimized_model_filepath = str(keep)
    if prefix := profile or wish.profile:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(prefix)
    return settings


def _placed(wish: _Wish, session: onnxruntime.InferenceSession, provider: str, setup: Setup) -> Placed:
    return placed(session, lambda prefix: _create(wish, wish.model, provider, setup, profile=prefix))


def _prove(name: str, provider: str, found: Placed) -> Iterator[str]:
    """Make sure that a provider runs the graph; yields what it left, as a sentence without its subject.

    Raises:
        ProviderError: It took nothing, or left more of the products than it took.
    """
    total = sum(sum(operators.values()) for operators in found.values())
    there, left = found.get(provider, {}), found.get("cpu", {})
    if not there:
        raise ProviderError(
            f"the provider {provider} took none of the {total} nodes of {name}; {_advice(provider)}"
        )
    taken_products, left_products = products(there), products(left)
    if sum(left_products.values()) > sum(taken_products.values()):
        raise ProviderError(
            f"the provider {provider} does not support what {name} is made of: {_named(left_products)} would run on "
            f"the CPU; {_advice(provider)}"
        )
    if left:
        yield (
            f"runs {sum(left.values())} of its {total} nodes on the CPU, since the provider {provider} does not take "
            f"them ({_named(left)}); answers are right, but speed may suffer"
        )


def _named(operators: Mapping[str, int]) -> str:
    named = [f"{count} {operator}" for operator, count in list(operators.items())[:_NAMED]]
    return ", ".join(named) + (", …" if len(operators) > _NAMED else "")


def _advice(provider: str) -> str:
    return f"a recipe belongs to a provider: export a file for {provider}, or choose the provider auto"


def _input(wish: _Wish) -> tuple[str, tuple[int, ...]] | None:
    """Give name and sides of the input of a graph that takes any batch, for a provider that has to know its shapes."""
    source = _create(wish, wish.model, "cpu", Setup({}, 1), optimized=True).get_inputs()[0]
    (batch, *sides) = source.shape
    free = not isinstance(batch, int) and all(isinstance(side, int) for side in sides)
    return (source.name, tuple(sides)) if free else None
