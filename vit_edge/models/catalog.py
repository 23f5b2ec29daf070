"""The named sizes; needs no torch."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType

from ..errors import OptionError
from .config import ViTConfig


def named(name: str, *, classes: int, image_size: int | tuple[int, int] | None = None) -> ViTConfig:
    """Give the sizes that *name* stands for, with the wanted number of classes.

    Args:
        name: One of `CATALOG`, for instance ``vit_tiny_patch16_224``.
        classes: Number of outputs.
        image_size: Side, or (height, width), in pixels; None keeps the size that the name says.

    Raises:
        OptionError: There is no such name, or the patch does not divide *image_size*.

    >>> named("vit_base_patch16_224", classes=1000).width
    768
    """
    if name not in CATALOG:
        near = get_close_matches(name, CATALOG, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `vit-edge models` lists them all"
        raise OptionError(f"expected the name of a model, got {name!r}{hint}")
    config = CATALOG[name]
    if image_size is None:
        return replace(config, classes=classes)
    pair = (image_size, image_size) if isinstance(image_size, int) else image_size
    return replace(config, classes=classes, image_size=pair)


def _catalog() -> Mapping[str, ViTConfig]:
    catalog = {}
    for size, (width, depth, heads, mlp_width) in _SIZES.items():
        for patch in (14, 16, 32):
            for side in (224, 384):
                if side % patch == 0:
                    catalog[f"vit_{size}_patch{patch}_{side}"] = ViTConfig(
                        (side, side), patch, width, depth, heads, mlp_width, classes=1000
                    )
    # Small enough to train on a processor in a minute: 28 pixels for handwritten digits, 32 for CIFAR.
    for side in (28, 32):
        catalog[f"vit_mini_patch4_{side}"] = ViTConfig((side, side), 4, 128, 6, 4, 256, classes=10)
    return MappingProxyType(catalog)


# Width, depth, heads, MLP. Base and large: Dosovitskiy et al. 2021, table 1; tiny and small: Touvron et al.
# 2021 (DeiT), table 1, and Steiner et al. 2021, table 1.
_SIZES = {
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
}

CATALOG = _catalog()
"""The named sizes, for 1000 classes (the mini ones: 10); `named` changes the classes and the image's size."""
