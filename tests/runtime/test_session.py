"""A session runs on the provider that was asked for, with the threads that were asked for, or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from vit_edge.runtime import Classifier, ModelError, ProviderError
from vit_edge.runtime.cores import usable_cores
from vit_edge.runtime.opening import prove
from vit_edge.runtime.placement import products, profiled
from vit_edge.runtime.session import PROVIDERS, open_session, recipe_of, start_session

from .onnx_writer import METADATA, colour_model, flat_colour

AVAILABLE = onnxruntime.get_available_providers()
ABSENT = [short for short, long in PROVIDERS.items() if long not in AVAILABLE]


def made_for(target: str, **recipe: Any) -> bytes:
    """Make a file whose recipe names a target."""
    return colour_model(replace(METADATA, recipe={"target": target} | recipe))


def test_an_unknown_provider_is_refused_with_those_there_are() -> None:
    """A misspelt one must not become the CPU without a word."""
    with pytest.raises(ProviderError) as caught:
        Classifier(colour_model(), "gpu")
    assert str(caught.value) == (
        "there is no provider 'gpu'; choose one of auto, cpu, cuda, tensorrt, openvino, directml, coreml, qnn, xnnpack"
    )


@pytest.mark.parametrize("missing", ABSENT)
def test_a_missing_provider_is_refused_and_never_replaced(missing: str) -> None:
    """ONNX Runtime would take the CPU, and the device would be slow with nobody knowing why."""
    with pytest.raises(ProviderError) as caught:
        Classifier(colour_model(), missing)
    text = str(caught.value)
    assert text.startswith(f"the installed ONNX Runtime has no provider {missing}, only cpu")
    assert text.endswith(", or choose another provider")


@pytest.mark.skipif(
    AVAILABLE != ["AzureExecutionProvider", "CPUExecutionProvider"],
    reason="another wheel of ONNX Runtime is here",
)
@pytest.mark.parametrize(
    ("provider", "advice"),
    [
        (
            "cuda",
            "its wheel is onnxruntime-gpu: `pip uninstall -y onnxruntime && pip install onnxruntime-gpu`",
        ),
        ("openvino", "its wheel is onnxruntime-openvino: `pip uninstall -y onnxruntime && pip install "),
        ("xnnpack", "no wheel on PyPI brings it, and ONNX Runtime has to be built with it"),
    ],
)
def test_the_wheel_of_a_missing_provider_is_named(provider: str, advice: str) -> None:
    """The wheels overwrite each other, so that the one that is here has to go first."""
    with pytest.raises(ProviderError) as caught:
        Classifier(colour_model(), provider)
    assert advice in str(caught.value)


@pytest.mark.parametrize("provider", ["auto", "cpu"])
def test_the_provider_that_runs_is_told(provider: str) -> None:
    """`auto` is a choice that a log should show."""
    classifier = Classifier(colour_model(), provider)
    assert classifier.provider == "cpu"
    assert classifier.notes == ()
    assert classifier(flat_colour("blue")).label == "blue"


@pytest.mark.parametrize("recipe", [{}, {"target": 3}, {"target": "cpu-avx2"}, {"provider": "Another"}])
def test_auto_is_the_cpu_for_files_that_were_made_for_no_other(recipe: dict[str, Any]) -> None:
    """The first files named no target, and one for older processors is one for processors."""
    assert start_session(colour_model(replace(METADATA, recipe=recipe)), name="the model").provider == "cpu"


@pytest.mark.skipif("openvino" not in ABSENT, reason="the provider is here")
@pytest.mark.parametrize(
    "recipe", [{"target": "openvino"}, {"target": "cpu", "provider": "OpenVINOExecutionProvider"}]
)
def test_auto_says_why_the_provider_of_the_recipe_does_not_run_it(recipe: dict[str, Any]) -> None:
    """The file runs, but not as it was meant to: whoever set the device up has to see it, and the cure."""
    classifier = Classifier(colour_model(replace(METADATA, recipe=recipe)))
    assert classifier.provider == "cpu"
    (note,) = classifier.notes
    assert note.startswith(
        "the model was made for openvino and runs on the provider cpu here: the installed ONNX Runtime has no "
        "provider openvino, only cpu"
    )
    assert "onnxruntime-openvino" in note


def test_a_recipe_that_cannot_be_read_is_for_whoever_reads_the_metadata() -> None:
    """Choosing a provider comes first, and must not fail with another sentence."""
    assert recipe_of(colour_model(changed={"vit_edge.recipe": "{"})) == {}
    assert recipe_of(colour_model(changed={"vit_edge.recipe": "[1]"})) == {}
    assert recipe_of(b"\xff" * 20) == {}
    with pytest.raises(ModelError, match=r"the entry vit_edge\.recipe of the model is no JSON"):
        Classifier(colour_model(changed={"vit_edge.recipe": "{"}))


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
    assert start_session(colour_model(), name="the model", threads=threads).threads == expected


def test_options_without_a_provider_that_takes_them_are_refused() -> None:
    """ONNX Runtime would ignore them, and their author would measure something else than meant."""
    with pytest.raises(
        ProviderError, match=r"the provider cpu takes no options, got device_type, x; leave them"
    ):
        Classifier(colour_model(), "cpu", provider_options={"device_type": "GPU", "x": "1"})
    with pytest.raises(
        ProviderError, match=r"options belong to one provider, got device_type for auto; name the"
    ):
        Classifier(colour_model(), provider_options={"device_type": "GPU"})


@pytest.mark.parametrize("raw", [False, True])
def test_every_node_is_counted_where_it_runs(raw: bool) -> None:
    """The proof that a graph runs where it should."""
    with Classifier(colour_model(raw=raw)) as classifier:
        # As ONNX Runtime rewrote it: a product and its bias are one.
        operators = {"Cast": 1, "ReduceMean": 1, "Gemm": 1}
        if not raw:
            operators = {"GlobalAveragePool": 1, "Reshape": 1, "MatMul": 1}
        assert classifier.operators == {"cpu": operators}
        assert classifier.placement == {"cpu": len(operators)}


def test_where_nodes_ran_is_known_after_closing_only_if_it_was_asked_before() -> None:
    """A report at a program's end must not fail where it worked before."""
    asked, unasked = (Classifier(colour_model()) for _ in range(2))
    placement = asked.placement
    asked.close()
    unasked.close()
    assert asked.placement == placement
    with pytest.raises(ModelError, match="was closed"):
        unasked.placement  # noqa: B018


@pytest.mark.parametrize("raw", [False, True])
def test_an_onnx_runtime_that_does_not_tell_is_profiled(raw: bool, tmp_path: Path) -> None:
    """Before 1.24 it has no record of its own; one answer's profile names the provider of every kernel."""

    def again(prefix: Path) -> onnxruntime.InferenceSession:
        settings = onnxruntime.SessionOptions()
        settings.enable_profiling = True
        settings.profile_file_prefix = str(prefix)
        return onnxruntime.InferenceSession(
            colour_model(raw=raw), settings, providers=["CPUExecutionProvider"]
        )

    found = profiled(again)
    assert list(found) == ["cpu"]
    # Rewritten by now: the bias may have gone into the product.
    assert products(found["cpu"]).keys() <= {"MatMul", "Gemm", "FusedMatMul", "FusedGemm"}
    assert sum(products(found["cpu"]).values()) == 1


def test_a_provider_that_left_part_of_the_graph_is_noted() -> None:
    """Shapes and gathers cost little, but whoever wonders about the speed should see them."""
    found = {
        "openvino": {"MatMul": 5, "Add": 9},
        "cpu": {"Gather": 3, "Where": 1, "Mod": 1, "Not": 1, "Abs": 1},
    }
    assert list(prove("x.onnx", "openvino", found)) == [
        "runs 7 of its 21 nodes on the CPU, since the provider openvino does not take them (3 Gather, 1 Where, 1 Mod, "
        "1 Not, …): answers are right, but speed may suffer; `vit-edge bench --provider openvino,cpu` compares it with "
        "the CPU alone"
    ]
    assert list(prove("x.onnx", "openvino", {"openvino": {"MatMul": 5}})) == []
    # It never takes the products of attention, and is on the same processor.
    assert len(list(prove("x.onnx", "xnnpack", {"xnnpack": {"Gemm": 5}, "cpu": {"MatMul": 2}}))) == 1
    # What TensorRT leaves to CUDA is no loss.
    assert list(prove("x.onnx", "tensorrt", {"tensorrt": {"MatMul": 1}, "cuda": {"MatMul": 3}})) == []


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"cpu": {"MatMul": 5, "Add": 2}}, "the provider qnn took none of the 7 nodes of x.onnx"),
        (
            {"qnn": {"Add": 90, "MatMul": 20}, "cpu": {"MatMulInteger": 2, "QAttention": 1, "Mul": 1}},
            "the provider qnn does not support what x.onnx is made of: 2 MatMulInteger, 1 QAttention would run on the "
            "CPU; a recipe belongs to a provider: export a file for qnn, or choose the provider auto",
        ),
    ],
)
def test_a_provider_that_left_the_work_to_the_cpu_is_an_error(
    found: dict[str, dict[str, int]], sentence: str
) -> None:
    """ONNX Runtime calls that success."""
    with pytest.raises(ProviderError) as caught:
        list(prove("x.onnx", "qnn", found))
    assert str(caught.value).startswith(sentence)


def test_the_terminal_stays_clean(capfd: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime writes its warnings past Python, among a program's answers."""
    with pytest.raises(ModelError):
        open_session(b"\xff" * 20, name="the model")
    Classifier(colour_model(unused=1))(flat_colour("red"))
    assert capfd.readouterr() == ("", "")
