"""What a Vision Transformer is made of, in numbers; needs no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import OptionError


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """The sizes of one network, named as in Dosovitskiy et al. 2021, table 1, in whole words.

    Args:
        image_size: (height, width) in pixels, each a multiple of *patch_size*.
        patch_size: The side of a square patch in pixels.
        width: Length of a token's vector (the paper's D).
        depth: Number of encoder blocks.
        heads: Attention heads of a block; they share out *width* evenly.
        mlp_width: Length of the hidden vector of a block's MLP.
        classes: Number of outputs.
        qkv_bias: Whether the projection to queries, keys and values has a bias.
        norm_eps: What LayerNorm adds to the variance.
        channels: Colours of a pixel.
        distilled: Whether a second token and head learn from a teacher (Touvron et al. 2021, section 4, "DeiT").

    Raises:
        OptionError: A number is out of range, or two of them do not go together.
    """

    image_size: tuple[int, int]
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int
    classes: int
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    channels: int = 3
    distilled: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, tuple) or len(self.image_size) != 2:
            raise OptionError(f"expected image_size as a pair (height, width), got {self.image_size!r}")
        counts = {"image height": self.image_size[0], "image width": self.image_size[1]}
        counts |= {name: getattr(self, name) for name in _COUNTS}
        for name, value in counts.items():
            if type(value) is not int or value < 1:
                raise OptionError(f"expected {name} to be a whole number above 0, got {value!r}")
        for name in ("qkv_bias", "distilled"):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(f"expected {name} to be true or false, got {getattr(self, name)!r}")
        if type(self.norm_eps) not in (int, float) or not 0 < self.norm_eps < 1:
            raise OptionError(f"expected norm_eps to be a number between 0 and 1, got {self.norm_eps!r}")
        height, width = self.image_size
        if height % self.patch_size or width % self.patch_size:
            raise OptionError(
                f"expected image sides that the patch of {self.patch_size} pixels divides, "
                f"got {height}x{width}; the nearest are {self._nearest(height)}x{self._nearest(width)}"
            )
        if self.width % self.heads:
            raise OptionError(
                f"expected heads to divide the width of {self.width}, got {self.heads}; "
                "64 numbers a head are usual"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ViTConfig":
        """Read what :meth:`to_dict` made, for instance from JSON, where the pair became a list.

        Raises:
            OptionError: A field is missing, unknown, or out of range.
        """
        if not isinstance(values, Mapping):
            raise OptionError(f"expected a mapping of the network's sizes, got {type(values).__name__}")
        # Checkpoints older than the distillation token do not mention it.
        values = {"distilled": False, **values}
        known = {field.name for field in fields(cls)}
        if missing := sorted(known - values.keys()):
            raise OptionError(f"the network's sizes lack {', '.join(missing)}")
        if unknown := sorted(values.keys() - known):
            raise OptionError(f"the network's sizes hold {', '.join(unknown)}, unknown here; update vit-edge")
        size = values["image_size"]
        return cls(**{**values, "image_size": tuple(size) if isinstance(size, list) else size})

    def to_dict(self) -> dict[str, Any]:
        """Give every field under its name, ready for JSON."""
        return asdict(self)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def patches(self) -> int:
        """Number of patches: the paper's N = HW / P²."""
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Length of the sequence that the encoder sees: the patches and the tokens that the heads read."""
        return self.patches + self.first_tokens

    @property
    def first_tokens(self) -> int:
        """How many tokens stand before the patches: the class token, and that of distillation where there is one."""
        return 1 + self.distilled

    @property
    def parameters(self) -> int:
        """Number of weights.

        >>> from vit_edge.models import CATALOG
        >>> f"{CATALOG['vit_tiny_patch16_224'].parameters:,}"
        '5,717,416'
        """
        d, m = self.width, self.mlp_width
        patches = d * self.channels * self.patch_size**2 + d
        positions = self.first_tokens * d + self.tokens * d
        norm = 2 * d
        attention = 3 * d * d + 3 * d * self.qkv_bias + d * d + d
        mlp = d * m + m + m * d + d
        head = self.first_tokens * (d * self.classes + self.classes)
        return patches + positions + self.depth * (2 * norm + attention + mlp) + norm + head

    def _nearest(self, side: int) -> int:
        return max(1, round(side / self.patch_size)) * self.patch_size


_COUNTS = ("patch_size", "width", "depth", "heads", "mlp_width", "classes", "channels")
