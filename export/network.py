"""The network that is exported, whose own answers are the reference: a torch module, or a graph made elsewhere."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx
import onnx.version_converter
from numpy.typing import NDArray

from ..errors import CheckpointError, ExportError
from ..runtime.session import open_session
from .graph import copy, without_notes
from .limits import IR_VERSIONS, OPSETS

if TYPE_CHECKING:
    from torch import nn

INPUT = "pixels"
OUTPUT = "logits"


class Network(Protocol):
    """What an export begins with.

    Attributes:
        reference: Whose answers the exported graphs are compared with, for people.
        kind: The same for the file.
    """

    reference: str
    kind: str

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer images: (batch, 3, height, width) float32, normalised, to (batch, classes) float32."""
        ...

    def graph(self, *, size: tuple[int, int], opset: int, batch: int | None) -> onnx.ModelProto:
        """Give the network as a float graph of images of *size* (height, width).

        It takes any batch size, but for a graph that takes *batch* only as it was made elsewhere.
        """
        ...


class TorchNetwork:
    """A torch module that maps (batch, 3, height, width) float32 to (batch, classes) logits."""

    reference = "torch"
    kind = "torch float32"

    def __init__(self, module: "nn.Module") -> None:
        self.module = module

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer images on the module's own device."""
        # Here, so that the command line's help and a pass in a process apart need no torch.
        from ..reference import torch_logits

        return torch_logits(self.module, pixels)

    def graph(self, *, size: tuple[int, int], opset: int, batch: int | None) -> onnx.ModelProto:
        """Trace the module."""
        from .trace import trace

        return trace(self.module, size=size, opset=opset)


class OnnxNetwork:
    """A float graph that was made elsewhere.

    Attributes:
        size: Height and width of its input, None where it takes any.
        batch: The only batch size that it takes, None where it takes any.
        sha256: Of the file.
    """

    reference = kind = "the float graph"

    def __init__(self, path: Path) -> None:
        """Read a file, with weights in files of their own beside it where it has them.

        Raises:
            CheckpointError: It is no float classifier of images in ONNX.
        """
        self.path = path
        try:
            data = path.read_bytes()
            self._model = onnx.load(path)
            # Shapes and types by the standard; what is no valid graph fails here with a reason.
            onnx.checker.check_model(self._model)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the path") from error
        # protobuf's and onnx's exceptions share no base but this one.
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{path} is no ONNX model ({reason}); export it anew where it was made"
            ) from error
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._require_float()
        shape = self._input_shape()
        self.batch, self.size = shape[0], None if None in shape[2:] else (shape[2] or 0, shape[3] or 0)
        self._session = open_session(self._model.SerializeToString(), name=str(path))

    def logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer images with ONNX Runtime's CPU provider, as the file stands."""
        filled = pixels if self.batch is None else np.resize(pixels, (self.batch, *pixels.shape[1:]))
        answers = self._session.run(None, {self._model_input.name: filled})[0]
        return np.asarray(answers, np.float32)[: len(pixels)]

    def graph(self, *, size: tuple[int, int], opset: int, batch: int | None) -> onnx.ModelProto:
        """Give the file's graph under our names for input and output; it keeps its operator set if that can be read.

        Raises:
            ExportError: It takes another size or batch, or cannot be brought to the opset.
        """
        if self.size is not None and self.size != size:
            raise ExportError(
                f"{self.path} takes images of {self.size[0]}x{self.size[1]} pixels and the preprocessing gives "
                f"{size[0]}x{size[1]}; give the crop that it was made for"
            )
        if self.batch is not None and batch != self.batch:
            raise ExportError(
                f"{self.path} takes batches of {self.batch} only; give --batch {self.batch}, or export it anew "
                "with a dynamic batch where it was made"
            )
        model = self._raised()
        _rename(model, self._model_input.name, INPUT)
        _rename(model, model.graph.output[0].name, OUTPUT)
        sides = model.graph.input[0].type.tensor_type.shape.dim
        for side, value in zip(sides, (self.batch, 3, *size), strict=True):
            side.Clear()
            if value is None:
                side.dim_param = "batch"
            else:
                side.dim_value = value
        return model

    def _raised(self) -> onnx.ModelProto:
        """Bring the graph to an operator set whose norms and GELUs are single operators, where it is older."""
        model = copy(self._model)
        present = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        if present > OPSETS[-1]:
            raise ExportError(
                f"{self.path} is of opset {present}, and up to {OPSETS[-1]} can be read; export it at an older one"
            )
        if present < OPSETS[0]:
            try:
                model = onnx.version_converter.convert_version(model, OPSETS[0])
            # The converter raises whatever its C++ parts raise.
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
                raise ExportError(
                    f"{self.path} is of opset {present} and cannot be brought to {OPSETS[0]} ({reason}); export it "
                    "at a newer one where it was made"
                ) from error
            present = OPSETS[0]
        # Initializers need not be inputs as well from version 4 on, and are none here.
        model.ir_version = IR_VERSIONS[present]
        weights = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        return without_notes(model)

    @property
    def _model_input(self) -> onnx.ValueInfoProto:
        weights = {tensor.name for tensor in self._model.graph.initializer}
        inputs: list[onnx.ValueInfoProto] = [
            value for value in self._model.graph.input if value.name not in weights
        ]
        if len(inputs) != 1 or len(self._model.graph.output) != 1:
            raise CheckpointError(
                f"expected one input and one output in {self.path}, got {len(inputs)} and "
                f"{len(self._model.graph.output)}; an image classifier takes pixels and gives logits"
            )
        return inputs[0]

    def _input_shape(self) -> list[int | None]:
        kind = self._model_input.type.tensor_type
        sides = [side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim]
        if kind.elem_type != onnx.TensorProto.FLOAT or len(sides) != 4 or sides[1] not in (3, None):
            raise CheckpointError(
                f"expected an input (batch, 3, height, width) float32 in {self.path}, got "
                f"{tuple('?' if side is None else side for side in sides)} "
                f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()}; export it from the float network"
            )
        return sides

    def _require_float(self) -> None:
        quantized = (
            "QuantizeLinear",
            "DynamicQuantizeLinear",
            "MatMulInteger",
            "QAttention",
            "QLinearMatMul",
        )
        found = next((node.op_type for node in self._model.graph.node if node.op_type in quantized), None)
        if found:
            raise CheckpointError(
                f"{self.path} is quantized already (it has a {found}); give the float model that it was made from"
            )


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Give a tensor another name, and whatever had that name before a free one."""
    if old == new:
        return
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    names |= {tensor.name for tensor in model.graph.initializer}
    swaps = {old: new}
    if new in names:
        free = f"{new}_inner"
        while free in names:
            free += "_"
        swaps[new] = free
    for node in model.graph.node:
        for places in (node.input, node.output):
            for place, name in enumerate(places):
                places[place] = swaps.get(name, name)
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer, *model.graph.value_info):
        value.name = swaps.get(value.name, value.name)
