"""The names that other libraries give to a ViT's weights, translated to timm's."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import CheckpointError


@dataclass(frozen=True)
class Named:
    """A state dict under timm's names, and what its naming tells beyond the tensors' shapes.

    LayerNorm's epsilon is in no state dict. Each library builds its ViT with a fixed one, so the naming tells
    it: timm, torchvision and Google's code 1e-6, transformers 1e-12 where its config does not say otherwise.
    """

    tensors: Mapping[str, Tensor]
    norm_eps: float = 1e-6
    heads: int | None = None


def to_timm_names(tensors: Mapping[str, Tensor]) -> Named:
    """Recognise the library that named *tensors* and give them timm's names.

    Names that are not understood stay as they are, for the caller to report.

    Raises:
        CheckpointError: The names are no library's that is known here, or show a part that is not supported.
    """
    while prefix := _shared_prefix(tensors):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    for pattern, part in _UNSUPPORTED:
        if name := next((name for name in tensors if pattern.search(name)), None):
            raise CheckpointError(
                f"has {part} ({name}), which is not supported; give a plain ViT with a class token"
            )
    if "patch_embed.proj.weight" in tensors:
        return Named(tensors)
    if "conv_proj.weight" in tensors:
        return Named(_merge(_rename(tensors, _TORCHVISION)))
    if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in tensors):
        return Named(_merge(_rename(tensors, _TRANSFORMERS)), norm_eps=1e-12)
    if "embedding/kernel" in tensors:
        return _from_google(tensors)
    shown = ", ".join(sorted(tensors)[:3])
    raise CheckpointError(
        f"expected the names of a ViT of timm, torchvision, transformers or Google's code, got {shown}; "
        "give a plain ViT for classification"
    )


def _shared_prefix(names: Iterable[str]) -> str | None:
    return next((p for p in _PREFIXES if all(name.startswith(p) for name in names)), None)


def _from_google(tensors: Mapping[str, Tensor]) -> Named:
    """Turn Flax's layouts into torch's.

    Flax keeps a kernel as (inputs, outputs), attention's with its heads apart, (inputs, heads, length) and
    (heads, length, outputs), and a convolution's as (rows, columns, inputs, outputs). Google's code has the
    GELU by tanh; timm runs the same weights with the exact one, and so does vit-edge.
    """
    heads = None
    turned = {}
    for name, tensor in tensors.items():
        if re.search(r"/(query|key|value)/", name):
            if tensor.ndim == 3:
                heads = tensor.shape[1]
                tensor = tensor.flatten(1).t()
            else:
                tensor = tensor.flatten()
        elif name.endswith("/kernel"):
            if tensor.ndim == 4:
                tensor = tensor.permute(3, 2, 0, 1)
            elif tensor.ndim == 3:
                tensor = tensor.flatten(0, 1).t()
            elif tensor.ndim == 2:
                tensor = tensor.t()
        turned[name] = tensor
    return replace(Named(_merge(_rename(turned, _GOOGLE))), heads=heads)


def _rename(tensors: Mapping[str, Tensor], table: Mapping[str, str]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = name
        for pattern, replacement in table.items():
            new = re.sub(f"^{pattern}", replacement, new)
        if new in renamed:
            raise CheckpointError(f"holds {new} under two names; save it again")
        renamed[new] = tensor
    return renamed


def _merge(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Join the separate projections to queries, keys and values into timm's one."""
    merged = dict(tensors)
    for name in tensors:
        if match := re.fullmatch(r"(blocks\.\d+\.attn\.)q\.(weight|bias)", name):
            parts = [f"{match[1]}{part}.{match[2]}" for part in "qkv"]
            rows = [merged[part] for part in parts if part in merged]
            if len(rows) == 3 and len({part.shape for part in rows}) == 1:
                merged[f"{match[1]}qkv.{match[2]}"] = torch.cat(rows)
                for part in parts:
                    del merged[part]
    return merged


# DataParallel, torch.compile and Lightning put these before every name.
_PREFIXES = ("module.", "_orig_mod.", "model.")

_TORCHVISION = {
    r"class_token$": "cls_token",
    r"encoder\.pos_embedding$": "pos_embed",
    r"conv_proj\.": "patch_embed.proj.",
    r"encoder\.layers\.encoder_layer_(\d+)\.": r"blocks.\1.",
    r"encoder\.ln\.": "norm.",
    r"heads\.(head\.)?": "head.",
    r"(blocks\.\d+)\.ln_1\.": r"\1.norm1.",
    r"(blocks\.\d+)\.ln_2\.": r"\1.norm2.",
    r"(blocks\.\d+)\.self_attention\.in_proj_": r"\1.attn.qkv.",
    r"(blocks\.\d+)\.self_attention\.out_proj\.": r"\1.attn.proj.",
    r"(blocks\.\d+)\.mlp\.(0|linear_1)\.": r"\1.mlp.fc1.",  # linear_1: before torchvision 0.15
    r"(blocks\.\d+)\.mlp\.(3|linear_2)\.": r"\1.mlp.fc2.",
}

# Files keep the names of version 4 and older; a state dict in memory has version 5's.
_TRANSFORMERS = {
    r"(?:vit\.)?embeddings\.cls_token$": "cls_token",
    r"(?:vit\.)?embeddings\.position_embeddings$": "pos_embed",
    r"(?:vit\.)?embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"(?:vit\.)?(?:encoder\.layer|layers)\.(\d+)\.": r"blocks.\1.",
    r"(?:vit\.)?layernorm\.": "norm.",
    r"classifier\.": "head.",
    r"(blocks\.\d+)\.layernorm_before\.": r"\1.norm1.",
    r"(blocks\.\d+)\.layernorm_after\.": r"\1.norm2.",
    r"(blocks\.\d+)\.attention\.(?:attention\.query|q_proj)\.": r"\1.attn.q.",
    r"(blocks\.\d+)\.attention\.(?:attention\.key|k_proj)\.": r"\1.attn.k.",
    r"(blocks\.\d+)\.attention\.(?:attention\.value|v_proj)\.": r"\1.attn.v.",
    r"(blocks\.\d+)\.attention\.(?:output\.dense|o_proj)\.": r"\1.attn.proj.",
    r"(blocks\.\d+)\.intermediate\.dense\.": r"\1.mlp.fc1.",
    r"(blocks\.\d+)\.output\.dense\.": r"\1.mlp.fc2.",
}

_GOOGLE = {
    r"cls$": "cls_token",
    r"Transformer/posembed_input/pos_embedding$": "pos_embed",
    r"embedding/": "patch_embed.proj/",
    r"Transformer/encoderblock_(\d+)/": r"blocks.\1.",
    r"Transformer/encoder_norm/": "norm/",
    r"(blocks\.\d+\.)LayerNorm_0/": r"\1norm1/",
    r"(blocks\.\d+\.)LayerNorm_2/": r"\1norm2/",
    r"(blocks\.\d+\.)MultiHeadDotProductAttention_1/query/": r"\1attn.q/",
    r"(blocks\.\d+\.)MultiHeadDotProductAttention_1/key/": r"\1attn.k/",
    r"(blocks\.\d+\.)MultiHeadDotProductAttention_1/value/": r"\1attn.v/",
    r"(blocks\.\d+\.)MultiHeadDotProductAttention_1/out/": r"\1attn.proj/",
    r"(blocks\.\d+\.)MlpBlock_3/Dense_0/": r"\1mlp.fc1/",
    r"(blocks\.\d+\.)MlpBlock_3/Dense_1/": r"\1mlp.fc2/",
    r"((?:blocks|patch_embed|norm|head)\b[^/]*)/(?:kernel|scale)$": r"\1.weight",
    r"((?:blocks|patch_embed|norm|head)\b[^/]*)/bias$": r"\1.bias",
}

_UNSUPPORTED = [
    (re.compile(pattern), part)
    for pattern, part in {
        r"(^|\.)distillation_": "a distillation token under transformers' names",
        r"(^|\.)(reg_token|register_tokens)": "register tokens",
        r"(^|\.)fc_norm\.": "average pooling with a norm after it",
        r"(^|\.)norm_pre\.|pre_layrnorm": "a norm before the encoder",
        r"\.ls\d\.|\.gamma_\d|layer_scale": "layer scale",
        r"\.[qk]_norm\.": "norms of queries and keys",
        r"relative_position|rel_pos": "relative positions",
        r"(^|\.)attn_pool\.|MAPHead": "attention pooling",
        r"pre_logits": "a layer before the head (pre_logits)",
        r"patch_embed\.backbone|conv_proj\.\w+\.|conv_root": "convolutions before the patches",
        r"\.mlp\.fc1_[gx]\.": "gated MLPs",
    }.items()
]
