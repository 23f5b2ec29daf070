"""Vision Transformers: their sizes, which need no torch, and the networks, which load it when first used."""

from typing import TYPE_CHECKING, Any

from .catalog import CATALOG, named
from .config import ViTConfig

if TYPE_CHECKING:
    from .positions import resample_positions
    from .vit import ViT

__all__ = ["CATALOG", "ViT", "ViTConfig", "named", "resample_positions"]


def __getattr__(name: str) -> Any:
    # `vit-edge models` lists the sizes on a machine without torch.
    if name == "ViT":
        from .vit import ViT

        return ViT
    if name == "resample_positions":
        from .positions import resample_positions

        return resample_positions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
