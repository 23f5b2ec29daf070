"""Small networks of every library, their graphs, and how tests look at graphs."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import timm
import torch
import transformers
from numpy.typing import NDArray
from torch import nn
from torchvision.models import VisionTransformer

from vit_edge.export.graph import copy, named
from vit_edge.export.passes import ClassTokenOnly, FuseAttention, Pass, SplitGemm, Unflatten
from vit_edge.export.trace import trace
from vit_edge.models import ViT, ViTConfig

SIZE, CLASSES, DEPTH = 32, 5, 3

CONFIG = ViTConfig((16, 16), patch_size=8, width=32, depth=2, heads=2, mlp_width=64, classes=7)
"""Our own network at its smallest."""

REWRITES: tuple[Pass, ...] = (SplitGemm(), Unflatten(), FuseAttention(), Unflatten(), ClassTokenOnly())
"""What makes the graph that is quantized."""


def small_vit(std: float, config: ViTConfig = CONFIG) -> ViT:
    """Make our own network with every weight drawn at random, none at zero or one."""
    torch.manual_seed(0)
    model = ViT(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model.eval()


def timm_vit(*, depth: int = DEPTH, classes: int = CLASSES, norm_first: bool = False) -> nn.Module:
    return timm.create_model(  # type: ignore[no-any-return]
        "vit_tiny_patch16_224",
        img_size=SIZE,
        patch_size=8,
        embed_dim=32,
        depth=depth,
        num_heads=2,
        num_classes=classes,
        pre_norm=norm_first,
    )


def torchvision_vit(*, depth: int = DEPTH, classes: int = CLASSES) -> nn.Module:
    return VisionTransformer(  # type: ignore[no-any-return]
        SIZE, 8, depth, 2, 32, 64, num_classes=classes, dropout=0.1
    )


def transformers_vit(*, depth: int = DEPTH, classes: int = CLASSES) -> nn.Module:
    sizes = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=depth,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=SIZE,
        patch_size=8,
        num_labels=classes,
    )
    return transformers.ViTForImageClassification(sizes)  # type: ignore[no-any-return]


def traced(module: nn.Module, size: tuple[int, int] = (SIZE, SIZE)) -> onnx.ModelProto:
    return named(trace(module, size=size, opset=20))


def rewritten(model: onnx.ModelProto, *first: Pass) -> onnx.ModelProto:
    """Rewrite a graph as it is before it is quantized, after some passes more."""
    for rewrite in (*first, *REWRITES):
        model = named(rewrite(model))
    return model


def images(count: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((count, 3, SIZE, SIZE), np.float32)


def answers(model: onnx.ModelProto, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"pixels": pixels})[0])


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rename every tensor and node, so that nothing can be found by its name."""
    renamed = copy(model)
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return name if not name or name in kept else names.setdefault(name, f"t{len(names)}")

    for tensor in renamed.graph.initializer:
        tensor.name = new(tensor.name)
    for index, node in enumerate(renamed.graph.node):
        node.name = f"n{index}"
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    del renamed.graph.value_info[:]
    return renamed
