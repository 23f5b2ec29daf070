"""A session runs on the provider that was asked for, with the threads that were asked for, or not at all."""

import onnxruntime
import pytest

from vit_edge.runtime import Classifier, ModelError, ProviderError
from vit_edge.runtime.cores import usable_cores
from vit_edge.runtime.session import PROVIDERS, open_session

from .onnx_writer import colour_model, flat_colour


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    """A misspelt one must not become the CPU without a word."""
    with pytest.raises(ProviderError) as caught:
        Classifier(colour_model(), "gpu")
    assert str(caught.value) == (
        "there is no provider 'gpu'; choose one of auto, cpu, cuda, tensorrt, openvino, directml, coreml, qnn, xnnpack"
    )


def test_a_missing_provider_is_refused_and_never_replaced() -> None:
    """ONNX Runtime would take the CPU, and the device would be slow with nobody knowing why."""
    available = onnxruntime.get_available_providers()
    missing = next(short for short, long in PROVIDERS.items() if long not in available)
    with pytest.raises(ProviderError) as caught:
        Classifier(colour_model(), missing)
    assert str(caught.value).startswith(f"the installed ONNX Runtime has no provider {missing}, only cpu")
    assert str(caught.value).endswith("install the wheel that brings it, or choose another provider")


@pytest.mark.parametrize("provider", ["auto", "cpu"])
def test_the_provider_that_runs_is_told(provider: str) -> None:
    """`auto` is a choice that a log should show."""
    classifier = Classifier(colour_model(), provider)
    assert classifier.provider == "cpu"
    assert classifier(flat_colour("blue")).label == "blue"


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_than_one_thread_is_refused(threads: int) -> None:
    """Zero would mean every core of the machine to ONNX Runtime."""
    with pytest.raises(ProviderError, match=f"expected at least 1 thread, got {threads}; leave it out"):
        Classifier(colour_model(), threads=threads)


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 2), (None, usable_cores())])
def test_the_session_has_the_threads_that_were_asked_for(threads: int | None, expected: int) -> None:
    """By default those that the process may use."""
    session = open_session(colour_model(), name="the model", threads=threads)
    assert session.get_session_options().intra_op_num_threads == expected


def test_waiting_threads_sleep_where_that_was_asked_for() -> None:
    """A camera's loop waits most of the time, and a battery pays for cores that wait awake."""
    quiet = open_session(colour_model(), name="the model", spinning=False).get_session_options()
    for kind in ("intra_op", "inter_op"):
        assert quiet.get_session_config_entry(f"session.{kind}.allow_spinning") == "0"
    usual = open_session(colour_model(), name="the model").get_session_options()
    with pytest.raises(RuntimeError, match="allow_spinning"):
        usual.get_session_config_entry("session.intra_op.allow_spinning")
    assert Classifier(colour_model(), spinning=False)(flat_colour("blue")).label == "blue"


def test_the_terminal_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime writes its warnings past Python, among a program's answers."""
    with pytest.raises(ModelError):
        open_session(b"\xff" * 20, name="the model")
    Classifier(colour_model(unused=1))(flat_colour("red"))
    assert capfd.readouterr() == ("", "")
