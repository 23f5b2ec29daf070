"""Targets ask for what their providers run."""

import json

import pytest

from vit_edge.errors import OptionError
from vit_edge.export.limits import OPSETS
from vit_edge.export.targets import TARGETS, target
from vit_edge.runtime.session import PROVIDERS


def test_every_target_names_a_provider_and_an_opset_that_are_known() -> None:
    """The runtime opens the file by the same short name."""
    assert list(TARGETS) == ["cpu", "cpu-avx2", "openvino", "tensorrt", "qnn", "coreml"]
    for name, one in TARGETS.items():
        assert one.name == name
        assert one.provider_name == PROVIDERS[one.provider]
        assert one.max_opset in OPSETS
        assert all(isinstance(value, str) for value in one.provider_options(2).values())


def test_only_the_cpu_provider_is_given_onnx_runtimes_own_operators() -> None:
    """Other providers leave them to the processor, or answer wrongly."""
    assert {name for name, one in TARGETS.items() if one.fused} == {"cpu", "cpu-avx2"}


def test_bounds_of_the_hardware_are_kept() -> None:
    """Pairs of products must fit 16 bits without VNNI; TensorRT takes no zero point; Core ML takes no QDQ."""
    assert [name for name, one in TARGETS.items() if one.weight_bits == 7] == ["cpu-avx2"]
    assert [name for name, one in TARGETS.items() if one.symmetric] == ["tensorrt"]
    assert [name for name, one in TARGETS.items() if one.recipe == "float16"] == ["coreml"]


def test_openvino_is_told_bf16_and_the_threads_in_its_own_way() -> None:
    """It takes a JSON text (a file's name makes it fall back silently), and does not read the session's threads."""
    options = target("openvino").provider_options(3)
    assert json.loads(options["load_config"])["CPU"]["INFERENCE_PRECISION_HINT"] == "bf16"
    assert options["num_of_threads"] == "3"
    assert "num_of_threads" not in target("cpu").provider_options(3)


def test_an_unknown_target_is_named_with_those_there_are() -> None:
    """A typing error must not become a recipe for another device."""
    with pytest.raises(OptionError) as caught:
        target("openvivo")
    assert str(caught.value) == (
        "expected a target from cpu, cpu-avx2, openvino, tensorrt, qnn, coreml, got 'openvivo'; choose one of them"
    )
