"""Creates a session on one provider and proves that it runs there; what to create is decided in `session`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime

from .errors import ModelError, ProviderError
from .placement import RECORD, Placed, placed, products
from .providers import PROVIDERS, Setup

# Only errors: ONNX Runtime would write its warnings to the user's terminal.
_QUIET = 3

# Operators that a sentence names; more of them say nothing more.
_NAMED = 4

Compiling = Callable[[str], AbstractContextManager[Any]]
"""Entered while a provider compiles a graph, with what is being done as its argument: shows that something happens."""


class Wish(NamedTuple):
    """What `start_session` was asked for, beside the provider."""

    model: Path | bytes
    name: str
    threads: int | None
    given: Mapping[str, str]
    spinning: bool
    recipe: Mapping[str, Any]
    profile: Path | None
    seal: str | None
    keep: bool
    compiling: Compiling


def create(
    wish: Wish,
    model: Path | bytes,
    provider: str,
    setup: Setup,
    *,
    optimized: bool = False,
    keep: Path | None = None,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Create a session, or say why not.

    Args:
        wish: What was asked for.
        model: The graph to open: the file's, or what was compiled of it.
        provider: A key of `PROVIDERS`.
        setup: Its options.
        optimized: Whether the graph was rewritten for this processor before, so that it is left as it is.
        keep: Where the graph is written to as it was rewritten.
        profile: As `Wish` has it, and before that.

    Raises:
        ModelError: The file is no ONNX model that this ONNX Runtime can run.
        ProviderError: The provider does not start, or does not take the graph.
    """
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
        from .probe import sentence  # most starts succeed, and are quicker without

        # Whose fault it is the processor's provider tells.
        create(wish, wish.model, "cpu", Setup({}, 1))
        raise ProviderError(
            f"the provider {provider} does not take {wish.name} ({sentence(str(error))}); {_advice(provider)}"
        ) from error
    if session.get_providers()[0] != wanted:
        from .probe import problem

        reason = problem(provider, setup.options, wish.given) or (
            f"ONNX Runtime left the provider {provider} for {session.get_providers()[0]} and gives no reason; "
            "mend its installation, or choose another provider"
        )
        raise ProviderError(reason)
    return session


def _settings(
    wish: Wish, setup: Setup, *, optimized: bool, keep: Path | None, profile: Path | None
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


def where(wish: Wish, session: onnxruntime.InferenceSession, provider: str, setup: Setup) -> Placed:
    return placed(session, lambda prefix: create(wish, wish.model, provider, setup, profile=prefix))


def prove(name: str, provider: str, found: Placed) -> Iterator[str]:
    """Make sure that a provider runs the graph; yields what it left, as a sentence without its subject.

    Raises:
        ProviderError: It took nothing, or left products to the processor.
    """
    total = sum(sum(operators.values()) for operators in found.values())
    there, left = found.get(provider, {}), found.get("cpu", {})
    if not there:
        raise ProviderError(
            f"the provider {provider} took none of the {total} nodes of {name}; {_advice(provider)}"
        )
    left_products = products(left)
    # XNNPACK is on the same processor, and never takes the products of two activations, as in attention.
    tolerated = sum(products(there).values()) if provider == "xnnpack" else 0
    if sum(left_products.values()) > tolerated:
        raise ProviderError(
            f"the provider {provider} does not support what {name} is made of: {_named(left_products)} would run on "
            f"the CPU; {_advice(provider)}"
        )
    if left:
        yield (
            f"runs {sum(left.values())} of its {total} nodes on the CPU, since the provider {provider} does not take "
            f"them ({_named(left)}): answers are right, but speed may suffer; "
            f"`vit-edge bench --provider {provider},cpu` compares it with the CPU alone"
        )


def _named(operators: Mapping[str, int]) -> str:
    named = [f"{count} {operator}" for operator, count in list(operators.items())[:_NAMED]]
    return ", ".join(named) + (", …" if len(operators) > _NAMED else "")


def _advice(provider: str) -> str:
    return f"a recipe belongs to a provider: export a file for {provider}, or choose the provider auto"


def input_of(wish: Wish) -> tuple[str, tuple[int, ...]] | None:
    """Give name and sides of the input of a graph that takes any batch, for a provider that has to know its shapes."""
    source = create(wish, wish.model, "cpu", Setup({}, 1), optimized=True).get_inputs()[0]
    (batch, *sides) = source.shape
    free = not isinstance(batch, int) and all(isinstance(side, int) for side in sides)
    return (source.name, tuple(sides)) if free else None


def refusal(error: Exception, name: str) -> ModelError:
    """Make one sentence of what ONNX Runtime threw: it cannot load a model, or failed while it ran it."""
    reason = " ".join(str(error).split())
    return ModelError(
        f"ONNX Runtime {onnxruntime.__version__} cannot run {name} ({reason}); update onnxruntime, "
        "or make the file anew with `vit-edge export`"
    )
