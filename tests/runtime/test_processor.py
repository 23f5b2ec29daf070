"""Two devices are told apart where it matters to INT8, and only there."""

from typing import Any

import pytest

from vit_edge.runtime.processor import INT8_FEATURES, differences, processor

CPU = "CPUExecutionProvider"
SERVER = ["avx2", "avx512bw", "avx512_vnni"]


def notes(
    there: list[str] | None,
    here: list[str] | None,
    *,
    architectures: tuple[str, str] = ("x86_64", "x86_64"),
    **recipe: Any,
) -> list[str]:
    """Say how a processor with features *here* differs from the one that a recipe was measured on."""
    devices: list[dict[str, Any]] = []
    for architecture, features in zip(architectures, (there, here), strict=True):
        devices.append({"architecture": architecture, "name": ""})
        if features is not None:
            devices[-1]["features"] = features
    values = {"precision": "int8", "target": "cpu", "provider": CPU, "processor": devices[0]} | recipe
    return list(differences(values, CPU, devices[1]))


def test_the_processor_here_is_described() -> None:
    """Its features are what the file's are compared with, on the device."""
    found = processor()
    assert found["architecture"]
    assert set(found.get("features", ())) <= set(INT8_FEATURES)
    assert list(differences({"precision": "int8", "processor": found}, CPU, found)) == []


def test_a_processor_without_dot_products_is_sent_to_its_own_target() -> None:
    """There, pairs of products are summed in 16 bits and saturate: the answers are wrong, not just slow."""
    assert notes(SERVER, ["avx2"]) == [
        "was measured on a processor with avx512_vnni, and this one has nothing of the kind: sums of 8-bit products "
        "can saturate, so that answers and speed may differ; check it with `vit-edge check`, "
        "or export with --target cpu-avx2"
    ]


@pytest.mark.parametrize("here", [["avx2", "avx_vnni"], ["avx2", "avx512bw", "amx_int8"]])
def test_a_processor_with_other_dot_products_is_not_sent_there(here: list[str]) -> None:
    """Its sums do not saturate, and the other target's weights have a bit less."""
    (sentence,) = notes(SERVER, here)
    assert "which this one lacks: answers and speed may differ; check it with `vit-edge check`" in sentence
    assert "avx512_vnni" in sentence
    assert "cpu-avx2" not in sentence


def test_more_features_than_were_measured_are_no_difference() -> None:
    """Nothing that the file relies on is missing."""
    assert notes(["avx2"], SERVER) == notes([], SERVER) == []


def test_a_file_for_plain_processors_runs_on_them_without_a_note() -> None:
    """It was made for them, on whatever machine; what lacks AVX2 as well is another matter."""
    assert notes(SERVER, ["avx2"], target="cpu-avx2") == []
    (sentence,) = notes(SERVER, [], target="cpu-avx2")
    assert "a processor with avx2, which this one lacks" in sentence


def test_a_float_file_depends_on_no_feature() -> None:
    """Its answers are the same everywhere, up to rounding."""
    assert notes(SERVER, [], precision="float32") == notes(SERVER, [], precision="float16") == []


def test_another_architecture_is_one_note() -> None:
    """Server and small board: the features of the one say nothing about the other's."""
    (sentence,) = notes(SERVER, ["asimddp"], architectures=("x86_64", "aarch64"))
    assert sentence.startswith(
        "was measured on a processor of type x86_64, and this one is aarch64: answers and "
    )
    assert notes(["asimddp"], ["asimddp"], architectures=("aarch64", "arm64")) == []
    assert notes(SERVER, SERVER, architectures=("x86_64", "AMD64")) == []


def test_what_a_system_does_not_tell_is_no_difference() -> None:
    """Only Linux lists the features; a guess would warn every user of the others."""
    assert notes(SERVER, None) == notes(None, SERVER) == []


def test_another_provider_is_a_difference_at_any_precision() -> None:
    """And one that adds to the processor's."""
    for precision, count in (("float32", 1), ("int8", 2)):
        found = notes(SERVER, ["avx2"], provider="OpenVINOExecutionProvider", precision=precision)
        assert len(found) == count
        assert found[0].startswith(
            "was measured on OpenVINOExecutionProvider and runs on CPUExecutionProvider "
        )


@pytest.mark.parametrize("recipe", [{}, {"precision": "int8"}, {"precision": "int8", "processor": None}])
def test_a_recipe_that_says_little_is_no_difference(recipe: dict[str, Any]) -> None:
    """The schema leaves the recipe open."""
    assert list(differences(recipe, CPU, processor())) == []


@pytest.mark.parametrize("provider", ["OpenVINOExecutionProvider", CPU])
def test_a_file_that_does_not_say_where_it_was_measured_is_unproven_on_its_own_provider(
    provider: str,
) -> None:
    """Nothing else would tell that nobody has run it there; on the CPU another note says why it is not at home."""
    found = list(differences({"target": "openvino"}, provider, {}))
    assert found == (
        []
        if provider == CPU
        else [
            "was made for openvino and does not say where it was measured: answers and speed here are unproven; check "
            "it with `vit-edge check`"
        ]
    )
    assert list(differences({"target": "cpu-avx2"}, CPU, {})) == []
