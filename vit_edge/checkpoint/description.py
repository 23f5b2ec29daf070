"""What a folder's config files tell about the weights beside them."""

from dataclasses import dataclass, field

from ..runtime.labels import Labels
from ..runtime.preprocess import Preprocessing


@dataclass(frozen=True)
class Description:
    """What timm or transformers wrote about a model; None where they wrote nothing.

    Args:
        labels: The classes.
        preprocessing: What the library itself does to an image.
        problem: Why *preprocessing* is None although there is one: a sentence for the user.
        heads: Attention heads.
        norm_eps: LayerNorm's epsilon.
        image_size: (height, width) that the weights were made for.
        sizes: More fields of `ViTConfig`, to compare with the weights' shapes.
    """

    labels: Labels | None = None
    preprocessing: Preprocessing | None = None
    problem: str | None = None
    heads: int | None = None
    norm_eps: float | None = None
    image_size: tuple[int, int] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
