"""OpenVINO's provider for real, in the environment of its own wheel."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from vit_edge.runtime import Classifier

from .onnx_writer import METADATA, colour_model, flat_colour, save_picture
from .openvino import needs_openvino, run

pytestmark = needs_openvino

OPEN = """
options = json.loads(sys.argv[3])
try:
    with Classifier(sys.argv[1], sys.argv[2], 1, provider_options=options) as classifier:
        notes, answer = classifier.notes, classifier("green.png").to_dict()
        tell(provider=classifier.provider, placement=classifier.placement, notes=notes, answer=answer)
except VitEdgeError as error:
    tell(error=type(error).__name__, text=str(error))
"""

# Before 1.24 a session did not tell where its nodes go.
OLD = """
from vit_edge.runtime import opening, placement

times = 0

def placed(session, again):
    global times
    times += 1
    return placement.profiled(again)

opening.placed = placed
with Classifier(sys.argv[1], "openvino", 1) as classifier:
    tell(provider=classifier.provider, placed=list(classifier.placement), opened_again=times)
"""


@pytest.fixture(autouse=True)
def _picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_picture(tmp_path / "green.png", flat_colour("green"))


def opened(
    provider: str,
    options: str = "{}",
    *,
    model: bytes | None = None,
    recipe: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Open a file there and classify; gives what the script told, with nothing on standard error."""
    Path("colours.onnx").write_bytes(model or colour_model(replace(METADATA, recipe=dict(recipe))))
    (told,), errors = run(OPEN, "colours.onnx", provider, options)
    if "error" not in told:
        # Notes are logged as well; with no handler, Python prints them.
        assert errors.splitlines() == told["notes"]
    else:
        assert errors == ""
    return told


def probabilities(answer: Mapping[str, Any]) -> list[float]:
    return [score["probability"] for score in answer["top"]]


def test_a_graph_runs_there_and_answers_as_on_the_cpu() -> None:
    """All nodes are counted where they run, before OpenVINO makes one of them."""
    told = opened("openvino", recipe={"provider": "OpenVINOExecutionProvider"})
    assert told["provider"] == "openvino"
    assert told["placement"] == {"openvino": 3}
    assert told["notes"] == []
    here = Classifier("colours.onnx", "cpu")("green.png").to_dict()
    assert told["answer"]["label"] == "green"
    np.testing.assert_allclose(probabilities(told["answer"]), probabilities(here), rtol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "provider", "note"),
    [
        ({"target": "openvino", "provider": "OpenVINOExecutionProvider"}, "openvino", ""),
        ({"target": "openvino"}, "openvino", "does not say where it was measured"),
        ({"target": "openvino", "provider": "CPUExecutionProvider"}, "openvino", "was measured on CPU"),
        (
            {"target": "qnn", "provider": "OpenVINOExecutionProvider"},
            "openvino",
            "was made for qnn and runs on",
        ),
        ({"target": "cpu", "provider": "CPUExecutionProvider"}, "cpu", ""),
        ({}, "cpu", ""),
    ],
)
def test_auto_takes_it_for_the_files_that_were_made_for_it(
    recipe: dict[str, str], provider: str, note: str
) -> None:
    """And for no other, though it is there: a recipe belongs to a provider. What was not measured there is said."""
    told = opened("auto", recipe=recipe)
    assert told["provider"] == provider
    assert told["placement"] == {provider: 3}
    assert [note in one for one in told["notes"]] == ([True] if note else [])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            '{"device_type": "GPU"}',
            "the provider openvino does not start (Device GPU is not available); check what it was given for "
            "device_type, or choose another provider",
        ),
        (
            '{"precision": "BF16"}',
            "the provider openvino does not start (Unsupported inference precision is selected. CPU only supports "
            "FP32, ACCURACY); check what it was given for precision, or choose another provider",
        ),
        (
            '{"no_such": "1", "num_of_threads": "1"}',
            "the provider openvino does not start (Invalid OpenVINO EP option: no_such); check what it was given for "
            "no_such, num_of_threads, or choose another provider",
        ),
        (
            '{"load_config": "openvino.json"}',
            'expected load_config to be a JSON object such as {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}, got '
            "'openvino.json'; leave it out, or see docs/providers.md for what the provider takes",
        ),
        (
            '{"load_config": "{\\"CPU\\": {\\"NO_SUCH\\": \\"1\\"}}"}',
            "the provider openvino does not start (NotFound: Unsupported property NO_SUCH by CPU plugin); check what "
            "it was given for load_config, or choose another provider",
        ),
    ],
)
def test_what_makes_it_fall_back_in_silence_is_an_error_with_the_reason(options: str, sentence: str) -> None:
    """ONNX Runtime goes on with the CPU, and tells why on standard error alone, or not at all."""
    # Wheels word their reasons differently; these are 1.24's.
    assert opened("openvino", options) == {"error": "ProviderError", "text": sentence}


def test_an_old_version_that_does_not_tell_opens_the_graph_once_more_at_most() -> None:
    """Each time the provider compiles it anew, which takes minutes for some."""
    Path("colours.onnx").write_bytes(colour_model(METADATA))
    (told,), _ = run(OLD, "colours.onnx")
    assert told == {"provider": "openvino", "placed": ["openvino"], "opened_again": 1}


def test_an_option_that_is_given_reaches_it() -> None:
    """In half precision the answers move a little, and by no more."""
    exact = opened("openvino")
    config = '{"load_config": "{\\"CPU\\": {\\"INFERENCE_PRECISION_HINT\\": \\"bf16\\"}}"}'
    told = opened("openvino", config)
    assert told["provider"] == "openvino"
    np.testing.assert_allclose(probabilities(told["answer"]), probabilities(exact["answer"]), atol=0.05)


def test_a_file_that_no_provider_takes_is_the_files_fault() -> None:
    """Whoever has a damaged file must not look for it in the provider."""
    told = opened("openvino", model=colour_model(opset=99))
    assert told["error"] == "ModelError"
    assert "cannot run colours.onnx" in told["text"]
