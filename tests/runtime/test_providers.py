"""Each provider gets the options that suit a ViT; and why one does not start is found where ONNX Runtime hides it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vit_edge
from vit_edge.runtime import ProviderError
from vit_edge.runtime.probe import explain, problem, sentence
from vit_edge.runtime.providers import COMPILED, PROVIDERS, SHORT_NAMES, WHEELS, Use, keeps, set_up

FOLDER = Path("cache")


def test_every_provider_has_its_options_as_text() -> None:
    """ONNX Runtime takes nothing else, and says so in C++."""
    for provider in PROVIDERS:
        setup = set_up(provider, Use("int8", True, 3, FOLDER, ("pixels", (3, 8, 8))))
        assert all(type(value) is str for value in (*setup.options.values(), *setup.entries.values()))
        assert provider in WHEELS or provider == "xnnpack"
        assert SHORT_NAMES[PROVIDERS[provider]] == provider


def test_an_option_that_is_given_wins() -> None:
    """Whoever gives it knows the device."""
    for provider in PROVIDERS.keys() - {"cpu"}:
        plain = set_up(provider, Use())
        given = dict.fromkeys((*plain.options, "new"), "given") | {"load_config": "{}"}
        assert set_up(provider, Use(), given).options.items() >= given.items()


@pytest.mark.parametrize(("precision", "tf32"), [("float32", "0"), ("float16", "1"), ("int8", "1")])
def test_a_gpu_computes_float32_as_it_was_proven(precision: str, tf32: str) -> None:
    """TF32 rounds to 10 bits: too coarse for the bounds of float32, and nothing beside INT8."""
    cuda = set_up("cuda", Use(precision)).options
    assert cuda["use_tf32"] == tf32
    tensorrt = set_up("tensorrt", Use(precision))
    assert tensorrt.options["trt_fp16_enable"] == tf32
    assert tensorrt.options["trt_int8_enable"] == ("1" if precision == "int8" else "0")
    # What TensorRT leaves goes to the same GPU, with the same care.
    assert tensorrt.next_best == {"CUDAExecutionProvider": cuda}


def test_tensorrt_builds_one_engine_and_keeps_it_with_its_timings() -> None:
    """Without a range of shapes it would build at the first answer, and again at the first larger batch."""
    setup = set_up("tensorrt", Use(folder=FOLDER, input=("pixels", (3, 224, 224))))
    options = setup.options
    assert [options[f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")] == [
        "pixels:1x3x224x224",
        "pixels:1x3x224x224",
        "pixels:8x3x224x224",
    ]
    assert setup.largest_batch == 8
    for cache in ("engine", "timing"):
        assert options[f"trt_{cache}_cache_enable"] == "1"
        assert options[f"trt_{cache}_cache_path"] == "cache"
    # A graph of a fixed batch has its shapes, and a user's own range has its own largest batch.
    assert set_up("tensorrt", Use()).largest_batch is None
    own = {"trt_profile_max_shapes": "pixels:32x3x224x224"}
    assert set_up("tensorrt", Use(input=("pixels", (3, 224, 224))), own).largest_batch is None


@pytest.mark.parametrize(
    ("precision", "own", "hint"),
    [("int8", True, "bf16"), ("int8", False, "f32"), ("float32", True, "f32"), ("float32", False, "f32")],
)
def test_openvino_takes_bf16_for_its_own_int8_files_alone(precision: str, own: bool, hint: str) -> None:
    """Another provider's graph answers wrongly in it, and float32 was proven to more digits."""
    options = set_up("openvino", Use(precision, own, threads=3)).options
    assert json.loads(options["load_config"])["CPU"]["INFERENCE_PRECISION_HINT"] == hint
    assert options["num_of_threads"] == "3"


def test_xnnpack_has_the_threads_and_the_session_none_beside_it() -> None:
    """Two pools on the same cores wait for each other."""
    setup = set_up("xnnpack", Use(threads=4))
    assert (setup.options["intra_op_num_threads"], setup.session_threads, setup.spinning) == ("4", 1, False)


def test_providers_that_need_known_shapes_get_one_batch() -> None:
    """They would leave a graph with a free axis to the processor."""
    assert [name for name in PROVIDERS if set_up(name, Use()).one_batch] == [
        "directml",
        "coreml",
        "qnn",
        "xnnpack",
    ]
    directml = set_up("directml", Use())
    assert directml.in_order
    assert not any(set_up(name, Use()).in_order for name in PROVIDERS if name != "directml")


def test_what_a_provider_compiles_is_kept_where_it_can_be_read_back() -> None:
    """A cache that is written at every start and never read wears a memory card out."""
    assert {name for name in PROVIDERS if keeps(name, {})} == COMPILED - {"openvino"}
    assert keeps("openvino", {"device_type": "GPU"})
    assert set_up("openvino", Use(folder=FOLDER)).options["cache_dir"] == "cache"
    assert set_up("coreml", Use(folder=FOLDER)).options["ModelCacheDirectory"] == "cache"
    assert set_up("qnn", Use(folder=FOLDER)).entries["ep.context_file_path"] == str(FOLDER / "context.onnx")
    assert set_up("qnn", Use()).entries == {}


@pytest.mark.parametrize("config", ["openvino.json", "[1]", "{", ""])
def test_openvinos_configuration_is_a_json_object_or_refused(config: str) -> None:
    """A file's name makes it fall back in silence."""
    with pytest.raises(ProviderError, match="expected load_config to be a JSON object such as"):
        set_up("openvino", Use(), {"load_config": config})


# As ONNX Runtime 1.31's wheel for GPUs wrote it where CUDA is not installed.
CUDA_LOG = (
    "\x1b[1;31m2026-01-02 19:50:46.595912749 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library /x/site-packages/"
    "onnxruntime/capi/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: "
    "No such file or directory\n\x1b[m\n"
    "\x1b[0;93m2026-01-02 19:50:46.595960540 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1295 "
    "CreateExecutionProviderFactoryInstance] Failed to create CUDAExecutionProvider. Require cuDNN 9.* and CUDA 13.*."
    "\x1b[m\n"
)
# As 1.24's wheel for OpenVINO wrote it.
OPENVINO_LOG = (
    "\x1b[1;31m2026-01-02 19:53:33.500449650 [E:onnxruntime:Default, provider_bridge_ort.cc:2310 Create] "
    "/onnxruntime/onnxruntime/core/providers/openvino/openvino_provider_factory.cc:141 std::string "
    "onnxruntime::openvino_ep::ParseDeviceType(std::shared_ptr<OVCore>, const onnxruntime::ProviderOptions&) [ERROR] "
    "[OpenVINO] Device GPU is not available\n\x1b[m\n"
    "\x1b[0;93m2026-01-02 19:53:33.500481767 [W:onnxruntime:Default, onnxruntime_pybind_state.cc:1066 "
    "CreateExecutionProviderFactoryInstance] Failed to create OpenVINOExecutionProvider.\x1b[m\n"
)
OPTION_ERROR = (
    "/onnxruntime/onnxruntime/python/onnxruntime_pybind_state.cc:1053 std::shared_ptr<onnxruntime::"
    "IExecutionProviderFactory> onnxruntime::python::CreateExecutionProviderFactoryInstance(const onnxruntime::"
    "SessionOptions&, const std::string&, const onnxruntime::ProviderOptionsMap&) Invalid OpenVINO EP option: nope\n"
)


def test_the_library_that_is_missing_is_named() -> None:
    """It is what a user has to install; thrown or logged, first or last."""
    assert explain(CUDA_LOG, None) == "its library needs libcublasLt.so.13, which is not found"
    assert explain(CUDA_LOG, RuntimeError("Please install TensorRT libraries as mentioned")) == (
        "its library needs libcublasLt.so.13, which is not found"
    )


def test_a_reason_is_told_without_the_places_in_the_code() -> None:
    """A user has no use for them; without any reason that is what is said."""
    assert explain(OPENVINO_LOG, None) == "Device GPU is not available"
    assert explain("", RuntimeError(OPTION_ERROR)) == "Invalid OpenVINO EP option: nope"
    assert explain("", RuntimeError("")) == "ONNX Runtime gives no reason"
    assert explain("a program's own line\n", None) == "ONNX Runtime gives no reason"
    assert sentence("one\nthe last line.\n\n") == "the last line"


def test_the_providers_that_are_here_start() -> None:
    """The graph of one node is one that every ONNX Runtime takes."""
    assert problem("cpu", {}) is None


def test_what_others_write_to_standard_error_meanwhile_is_not_lost_for_good() -> None:
    """The stream goes back to where it was, also in a service that has none."""
    script = """
import os, sys
from vit_edge.runtime.probe import problem
assert problem("cpu", {}) is None
os.write(2, b"after\\n")
os.close(2)
assert problem("cpu", {}) is None
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(Path(vit_edge.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "after\n")


def test_two_wheels_at_once_are_the_reason_why_a_provider_is_missing(tmp_path: Path) -> None:
    """Pip installs both without a word, and the last one's files win."""
    for wheel in ("onnxruntime", "onnxruntime_openvino"):
        folder = tmp_path / f"{wheel}-1.24.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {wheel.replace('_', '-')}\nVersion: 1.24.0\n"
        )
    script = "from vit_edge.runtime.probe import missing; print(missing('openvino'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(vit_edge.__file__).parents[1])))},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (
        "onnxruntime-openvino is installed, but onnxruntime overwrote it: `pip uninstall -y onnxruntime "
        "onnxruntime-openvino && pip install onnxruntime-openvino`, or choose another provider"
    ) in done.stdout
