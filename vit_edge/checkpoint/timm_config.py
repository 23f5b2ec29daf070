"""timm's config.json: what a model was, and how timm prepares its images."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ..models import CATALOG
from ..runtime.errors import ModelError
from ..runtime.labels import Label, Labels
from ..runtime.preprocess import Preprocessing
from .description import Description


def describe_timm(config: Mapping[str, Any]) -> Description:
    """Read timm's ``config.json``.

    Raises:
        CheckpointError: The model is not a plain ViT with a class token.
    """
    pretrained = config.get("pretrained_cfg", config)  # before timm 0.9 all was one level
    arguments = config.get("model_args", {})
    architecture = str(config["architecture"])
    match = _PLAIN.fullmatch(architecture)
    if match is None:
        raise CheckpointError(
            f"its architecture {architecture} is not supported; give a plain ViT such as vit_tiny_patch16_224"
        )
    _check_arguments(config, arguments)
    heads = arguments.get("num_heads")
    if heads is None and arguments and "embed_dim" not in arguments:
        # timm records every argument, so what it did not record is the architecture's.
        named = CATALOG.get(f"vit_{match[1]}_patch16_224")
        heads = named.heads if named else None
    side = arguments.get("img_size")
    size = [side, side] if isinstance(side, int) else side or pretrained.get("input_size", [])[1:]
    preprocessing, problem = _preprocessing(pretrained)
    return Description(
        labels=_labels(config, pretrained),
        preprocessing=preprocessing,
        problem=problem,
        heads=heads,
        image_size=(size[0], size[1]) if len(size) == 2 else None,
    )


def _check_arguments(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse what changes the network's function and may leave no trace in its state dict."""
    pooling = config.get("global_pool", "token")
    if pooling != "token":
        raise CheckpointError(
            f"it pools by {pooling!r}, which is not supported; give a ViT with a class token"
        )
    for name, value in arguments.items():
        plain = _PLAIN_VALUES.get(name, (None, False))
        if name not in _HARMLESS and not name.endswith("drop_rate") and value not in plain:
            raise CheckpointError(
                f"it was built with {name}={value!r}, which is not supported; give a plain ViT"
            )


def _preprocessing(pretrained: Mapping[str, Any]) -> tuple[Preprocessing | None, str | None]:
    """Give what ``timm.data.create_transform`` makes for evaluation (``transforms_imagenet_eval``)."""
    if any(pretrained.get(key) is None for key in ("input_size", "interpolation", "crop_pct", "mean", "std")):
        return None, None
    crop = (int(pretrained["input_size"][1]), int(pretrained["input_size"][2]))
    scaled = (math.floor(crop[0] / pretrained["crop_pct"]), math.floor(crop[1] / pretrained["crop_pct"]))
    mode = pretrained.get("crop_mode") or "center"  # the only one before timm 0.8
    resize: int | tuple[int, int] = scaled
    if mode == "center":
        if crop[0] != crop[1]:
            return None, "its centre crop is not square, which is not supported; give --preprocess"
        resize = scaled[0]
    elif mode != "squash":
        return None, f"its crop mode {mode!r} pads images, which is not supported; give --preprocess"
    try:
        return Preprocessing(
            resize=resize,
            crop=crop,
            interpolation=pretrained["interpolation"],
            mean=tuple(pretrained["mean"]),
            std=tuple(pretrained["std"]),
        ), None
    except ModelError as error:
        return None, f"its preprocessing is not supported: {error}"


def _labels(config: Mapping[str, Any], pretrained: Mapping[str, Any]) -> Labels | None:
    names = config.get("label_names") or pretrained.get("label_names") or pretrained.get("labels")
    if not names:
        return None
    if isinstance(names, Mapping):  # by place; gaps would shift the answers
        places = {int(place): name for place, name in names.items()}
        if sorted(places) != list(range(len(places))):
            raise CheckpointError("its label_names leave out places; correct config.json")
        names = [places[place] for place in range(len(places))]
    described = config.get("label_descriptions") or pretrained.get("label_descriptions") or {}
    # A name with a description is an id, such as a synset's, and the description is what people read.
    return Labels(
        tuple(
            Label(str(described[name]), str(name)) if name in described else Label.parse(str(name))
            for name in names
        )
    )


# Architectures whose state dicts and functions are the plain ViT's; deit3, clip, siglip … are not.
_PLAIN = re.compile(r"(?:vit|deit)_(tiny|small|base|large|huge)_patch\d+_\d+(?:_in21k|_miil)?")
# What the shapes tell anyway, or what only matters before training or at other image sizes.
_HARMLESS = {
    "img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "num_classes", "in_chans",
    "qkv_bias", "dynamic_img_size", "strict_img_size", "weight_init", "fix_init",
}  # fmt: skip
_PLAIN_VALUES: Mapping[str, tuple[Any, ...]] = {
    "act_layer": (None, "gelu"),
    "class_token": (None, True),
    "final_norm": (None, True),
    "global_pool": (None, "token"),
    "pos_embed": (None, "learn"),
    "proj_bias": (None, True),
}
