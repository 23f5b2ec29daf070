"""What each execution provider of ONNX Runtime runs fast: the recipe that a target asks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from ..errors import OptionError
from ..runtime.providers import PROVIDERS, Use, set_up

Recipe = Literal["dynamic", "static", "float16"]


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of device, by the execution provider that runs the file there.

    Attributes:
        name: What users call it.
        provider: The provider's short name, a key of `PROVIDERS`.
        recipe: ``dynamic``: activations quantized on the device; ``static``: QDQ with fixed ranges; ``float16``.
        symmetric: Whether static activations must be int8 with zero point 0.
        fused: Whether ONNX Runtime's own operators (``com.microsoft``) may stand in the graph.
        weight_bits: 8, or 7 where an unsigned-by-signed product may saturate.
        max_opset: The newest opset that the provider's current wheel reads.
        options: The provider's options, as text; for the number of threads see `provider_options`.
        threads_option: The provider's option for its number of threads, where the session's does not reach it.
    """

    name: str
    provider: str
    recipe: Recipe
    symmetric: bool
    fused: bool
    weight_bits: int
    max_opset: int
    options: Mapping[str, str] = field(default_factory=dict)
    threads_option: str | None = None

    @property
    def provider_name(self) -> str:
        """ONNX Runtime's name for the provider."""
        return PROVIDERS[self.provider]

    def provider_options(self, threads: int) -> dict[str, str]:
        """Give the options to open a session of so many threads with."""
        return dict(self.options) | ({self.threads_option: str(threads)} if self.threads_option else {})


def target(name: str) -> Target:
    """Give a target by its name.

    Raises:
        OptionError: There is no such target.
    """
    if name not in TARGETS:
        raise OptionError(f"expected a target from {', '.join(TARGETS)}, got {name!r}; choose one of them")
    return TARGETS[name]


def _as_on_the_device(provider: str, precision: str, *left_out: str) -> Mapping[str, str]:
    """Give the options that the runtime opens a file of this recipe with: what is measured here is what runs there."""
    options = set_up(provider, Use(precision=precision, own_recipe=True)).options
    return MappingProxyType({key: value for key, value in options.items() if key not in left_out})


_ALL = (
    Target("cpu", "cpu", "dynamic", symmetric=False, fused=True, weight_bits=8, max_opset=23),
    # Without VNNI, unsigned bytes times signed bytes are added in pairs in 16 bits, and 2 · 255 · 127 does not fit:
    # ONNX Runtime's quantizers call the remedy reduce_range.
    Target("cpu-avx2", "cpu", "dynamic", symmetric=False, fused=True, weight_bits=7, max_opset=23),
    # Dynamically quantized graphs run there, but slower than float ones; contrib operators answered wrongly with bf16.
    # ONNX Runtime 1.24, its newest wheel, reads opset 24 as a preview; 20 is what was measured.
    Target(
        "openvino",
        "openvino",
        "static",
        symmetric=False,
        fused=False,
        weight_bits=8,
        max_opset=20,
        options=_as_on_the_device("openvino", "int8", "num_of_threads"),
        threads_option="num_of_threads",
    ),
    # "TensorRT only supports symmetric quantization - zeroPt must be all zeros" (its ONNX parser; TensorRT issue 2774,
    # and "Working with Quantized Types" in its documentation). Weights stored in int8 behind a DequantizeLinear are
    # read ("Explicit Quantization", Quantized Weights); older versions took biases and weights in float only, and
    # biases stay in float here. trt_int8_enable lets the provider honour QDQ.
    Target(
        "tensorrt",
        "tensorrt",
        "static",
        symmetric=True,
        fused=False,
        weight_bits=8,
        max_opset=20,
        options=_as_on_the_device("tensorrt", "int8"),
    ),
    # HTP, its accelerator, takes unsigned 8-bit activations with a zero point, and MatMul weights per channel
    # (onnxruntime-qnn issue 650) where the product's output is quantized as well; what stands in float beside it
    # needs fp16 on the device (enable_htp_fp16_precision), or it is left to the processor (onnxruntime issue 18351).
    Target(
        "qnn",
        "qnn",
        "static",
        symmetric=False,
        fused=False,
        weight_bits=8,
        max_opset=20,
        options=_as_on_the_device("qnn", "int8"),
    ),
    # The provider has no QuantizeLinear and DequantizeLinear: a graph with them runs on the processor, product by
    # product. The Neural Engine computes in float16 whatever it is given; ML programs keep types as they are. While it
    # is measured the batch axis is free, which the runtime fixes.
    Target(
        "coreml",
        "coreml",
        "float16",
        symmetric=False,
        fused=False,
        weight_bits=8,
        max_opset=20,
        options=_as_on_the_device("coreml", "float16", "RequireStaticInputShapes"),
    ),
)

TARGETS: Mapping[str, Target] = MappingProxyType({target.name: target for target in _ALL})
"""All targets, by name."""
