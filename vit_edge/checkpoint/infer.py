"""The sizes of a network, read from the shapes of its weights."""

import math
from collections.abc import Mapping

from torch import Tensor

from ..errors import CheckpointError
from ..models import CATALOG, ViTConfig


def infer_config(
    tensors: Mapping[str, Tensor],
    *,
    heads: int | None,
    norm_eps: float,
    image_size: tuple[int, int] | None = None,
) -> ViTConfig:
    """Tell the sizes of the ViT whose state dict, under timm's names, is *tensors*.

    Args:
        tensors: The state dict.
        heads: Attention heads, which no shape tells; None takes those of the named size of the same width,
            depth and MLP.
        norm_eps: LayerNorm's epsilon, which no shape tells.
        image_size: (height, width) where something else told it; None takes the positions as a square.

    Raises:
        CheckpointError: A needed tensor is missing or has an odd shape, or the heads cannot be told.
        OptionError: The sizes do not go together.
    """
    width, channels, patch, columns = _shape(tensors, "patch_embed.proj.weight", 4)
    if patch != columns:
        raise CheckpointError(
            f"expected square patches, got {patch}x{columns} pixels, which are not supported"
        )
    if channels != 3:
        raise CheckpointError(f"expected weights for RGB images, got {channels} channels; train it on RGB")
    if "cls_token" not in tensors:
        raise CheckpointError("has no class token, so it pools otherwise, which is not supported")
    if not any(name.startswith("head.") for name in tensors):
        raise CheckpointError("has no head, so it does not classify; fine-tune it first")
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    mlp_width, _ = _shape(tensors, "blocks.0.mlp.fc1.weight", 2)
    classes, _ = _shape(tensors, "head.weight", 2)
    _, tokens, _ = _shape(tensors, "pos_embed", 3)
    distilled = "dist_token" in tensors
    return ViTConfig(
        image_size=_image_size(tokens - 1 - distilled, patch, image_size),
        patch_size=patch,
        width=width,
        depth=depth,
        heads=_known_heads(width, depth, mlp_width) if heads is None else heads,
        mlp_width=mlp_width,
        classes=classes,
        qkv_bias="blocks.0.attn.qkv.bias" in tensors,
        norm_eps=norm_eps,
        distilled=distilled,
    )


def _image_size(patches: int, patch: int, image_size: tuple[int, int] | None) -> tuple[int, int]:
    if image_size is None:
        side = math.isqrt(max(patches, 0))
        if side == 0 or side * side != patches:
            raise CheckpointError(
                f"expected positions for a class token and a square of patches, got {patches + 1} positions, "
                "which are not supported"
            )
        return side * patch, side * patch
    height, width = image_size
    if type(height) is not int or type(width) is not int:
        raise CheckpointError(
            f"expected the image size in its config in pixels, got {image_size}; correct it"
        )
    made = (height // patch) * (width // patch)
    if made != patches:
        raise CheckpointError(
            f"its config says images of {height}x{width}, which make {made} patches, but "
            f"its weights have positions for {patches}; correct image_size in config.json"
        )
    return image_size


def _known_heads(width: int, depth: int, mlp_width: int) -> int:
    for config in CATALOG.values():
        if (config.width, config.depth, config.mlp_width) == (width, depth, mlp_width):
            return config.heads
    raise CheckpointError(
        f"the number of attention heads cannot be told from weights of width {width}, depth {depth} and "
        f"MLP {mlp_width}, which are no named size; give it with --heads N"
    )


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"lacks {name}; give the whole state dict of a ViT")
    shape = tuple(tensors[name].shape)
    if len(shape) != dimensions or 0 in shape:
        raise CheckpointError(f"expected {name} with {dimensions} dimensions, got shape {shape}")
    return shape
