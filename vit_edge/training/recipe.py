"""How a network is trained, in numbers; needs no torch."""

import math
from dataclasses import dataclass, fields

from ..errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The numbers of a training run; the defaults train a small ViT from scratch on a small data set.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step.
        learning_rate: The highest rate, reached after the warm-up.
        weight_decay: AdamW's decay of weights, decoupled from the gradient (Loshchilov and Hutter 2019).
        warmup: Share of all steps in which the rate rises from 0 (Goyal et al. 2017, section 2.2).
        label_smoothing: What the right class gives up to all classes (Szegedy et al. 2016, section 7).
        clip_norm: The gradient's largest Euclidean norm (Pascanu et al. 2013).
        shift: An image moves by up to this share of its sides.
        zoom: An image grows or shrinks by up to this share.
        flip: Whether half of the images are mirrored, which is wrong for digits, text and signs.
        seed: Where the weights, the order of the images and their changes come from.

    Raises:
        OptionError: A number is out of range.

    >>> Recipe(epochs=3).batch_size
    64
    """

    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    label_smoothing: float = 0.1
    clip_norm: float = 1.0
    shift: float = 0.1
    zoom: float = 0.1
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value):
                raise OptionError(f"expected {_word(field.name)} to be a finite number, got {value}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise OptionError(f"expected {_word(name)} to be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise OptionError(f"expected {_word(name)} to be above 0, got {getattr(self, name)}")
        for name in ("weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise OptionError(f"expected {_word(name)} to be 0 or more, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay"):
            if getattr(self, name) > _LARGEST:
                raise OptionError(
                    f"expected {_word(name)} to be at most {_LARGEST:g}, got {getattr(self, name)}; "
                    "0.0001 to 0.1 is usual"
                )
        for name in ("warmup", "label_smoothing", "shift", "zoom"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(
                    f"expected {_word(name)} to be from 0 to below 1, got {getattr(self, name)}"
                )
        if self.seed >= 2**63:
            raise OptionError(f"expected the seed to be below 2**63, got {self.seed}")


def learning_rate(step: int, *, steps: int, recipe: Recipe) -> float:
    """Give the rate of a step: a straight line up, then half a cosine down to 0.

    The cosine is equation 5 of Loshchilov and Hutter 2017, "SGDR".

    Args:
        step: The step's number, from 0.
        steps: How many steps the whole run has.
        recipe: Its highest rate and its warm-up.

    >>> recipe = Recipe(learning_rate=1.0, warmup=0.2)
    >>> [round(learning_rate(step, steps=10, recipe=recipe), 2) for step in range(10)]
    [0.5, 1.0, 1.0, 0.96, 0.85, 0.69, 0.5, 0.31, 0.15, 0.04]
    """
    rising = round(recipe.warmup * steps)
    if step < rising:
        return recipe.learning_rate * (step + 1) / rising
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


# Far above anything useful; beyond it AdamW's own factors overflow a float32.
_LARGEST = 1e6


def _word(name: str) -> str:
    return f"the {name.replace('_', ' ')}" if name != "epochs" else "the number of epochs"
