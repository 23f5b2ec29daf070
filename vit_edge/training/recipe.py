"""How a network is trained, in numbers; needs no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..errors import OptionError

Policy = Literal["shift", "trivial", "rand", "none"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

Distillation = Literal["none", "soft", "hard"]
DISTILLATIONS: tuple[Distillation, ...] = get_args(Distillation)

Precision = Literal["float32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The numbers of a training run; the defaults train a small ViT from scratch on a small data set.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per step, on all devices together.
        learning_rate: The highest rate, reached after the warm-up.
        weight_decay: AdamW's decay of weights, decoupled from the gradient (Loshchilov and Hutter 2019).
        warmup: Share of all steps in which the rate rises from 0 (Goyal et al. 2017, section 2.2).
        label_smoothing: What the right class gives up to all classes (Szegedy et al. 2016, section 7).
        clip_norm: The gradient's largest Euclidean norm (Pascanu et al. 2013).
        augment: ``shift``: `shift`, `zoom`; ``trivial``: TrivialAugment (Müller and Hutter 2021); ``rand``:
            RandAugment (Cubuk et al. 2020) of two operations; ``none``. The last three crop by `crop_scale`.
        magnitude: RandAugment's, of 30.
        crop_scale: The least share of an image's area that a random crop keeps (Szegedy et al. 2015, section 6);
            1 crops nothing.
        shift: An image moves by up to this share of its sides.
        zoom: An image grows or shrinks by up to this share.
        flip: Whether half of the images are mirrored, which is wrong for digits, text and signs.
        erasing: Share of images in which a random rectangle is erased (Zhong et al. 2020).
        mixup: The alpha of MixUp's Beta distribution (Zhang et al. 2018); 0 mixes nothing.
        cutmix: The alpha of CutMix's (Yun et al. 2019). With both, each pair of images gets one of them by a coin.
        drop_path: The share of branches that the last block leaves out while training, rising from 0 at the first
            (stochastic depth, Huang et al. 2016).
        ema: The share that the moving average of the weights keeps of itself in a step (Polyak and Juditsky 1992); less
            in the first steps. The average is what is validated and kept; 0 goes without.
        layer_decay: What the learning rate is multiplied by from each block to the one before it (Clark et al. 2020;
            Bao et al. 2022, "BEiT"); below 1 for fine-tuning.
        freeze: Train the head alone, a linear probe.
        distillation: ``soft``: the teacher's probabilities (Hinton et al. 2015); ``hard``: its first answer
            (Touvron et al. 2021).
        distillation_weight: The share of the loss that the teacher has; DeiT's token takes its part whatever this is.
        temperature: What the logits are divided by for soft distillation.
        quantize: Train with the quantizers of a static INT8 export in place (Jacob et al. 2018).
        symmetric: Whether their grids of activations lie even around 0, as some devices want them.
        weight_bits: Of their grids of weights: 8, or 7 for processors that add pairs of products in 16 bits.
        precision: ``float32``, or ``bf16`` where the device has it (weights stay in float32).
        compile: Compile the network with torch.compile.
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
    augment: Policy = "shift"
    magnitude: int = 9
    crop_scale: float = 1.0
    shift: float = 0.1
    zoom: float = 0.1
    flip: bool = False
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    drop_path: float = 0.0
    ema: float = 0.0
    layer_decay: float = 1.0
    freeze: bool = False
    distillation: Distillation = "none"
    distillation_weight: float = 0.5
    temperature: float = 3.0
    quantize: bool = False
    symmetric: bool = False
    weight_bits: int = 8
    precision: Precision = "float32"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"expected {_word(name)} to be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise OptionError(f"expected {_word(field.name)} to be a finite number, got {value}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise OptionError(f"expected {_word(name)} to be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "crop_scale", "layer_decay", "temperature"):
            if getattr(self, name) <= 0:
                raise OptionError(f"expected {_word(name)} to be above 0, got {getattr(self, name)}")
        for name in ("weight_decay", "seed", "mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise OptionError(f"expected {_word(name)} to be 0 or more, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay"):
            if getattr(self, name) > _LARGEST:
                raise OptionError(
                    f"expected {_word(name)} to be at most {_LARGEST:g}, got {getattr(self, name)}; "
                    "0.0001 to 0.1 is usual"
                )
        for name in ("warmup", "label_smoothing", "shift", "zoom", "drop_path", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(
                    f"expected {_word(name)} to be from 0 to below 1, got {getattr(self, name)}"
                )
        for name in ("erasing", "crop_scale", "layer_decay", "distillation_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"expected {_word(name)} to be from 0 to 1, got {getattr(self, name)}")
        if self.weight_bits not in (7, 8):
            raise OptionError(f"expected the weight bits to be 7 or 8, got {self.weight_bits}")
        if not 0 <= self.magnitude <= _MAGNITUDES:
            raise OptionError(f"expected the magnitude to be from 0 to {_MAGNITUDES}, got {self.magnitude}")
        if self.seed >= 2**63:
            raise OptionError(f"expected the seed to be below 2**63, got {self.seed}")

    @property
    def crops(self) -> bool:
        """Whether training takes random crops, which are crops of whole images."""
        return self.augment != "shift" and self.crop_scale < 1

    @property
    def changes(self) -> bool:
        """Whether torchvision changes images one by one; `shift` treats whole batches, without it."""
        one_by_one = self.crops or self.flip or self.erasing or self.augment != "none"
        return self.augment != "shift" and bool(one_by_one)

    def to_dict(self) -> dict[str, Any]:
        """Give every field under its name, ready for JSON."""
        return asdict(self)

    def differing(self, other: Mapping[str, Any]) -> list[str]:
        """Give the names of the fields that differ from those of another recipe, as `to_dict` gives it."""
        return [name for name, value in self.to_dict().items() if other.get(name) != value]


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


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "augment": POLICIES,
    "distillation": DISTILLATIONS,
    "precision": PRECISIONS,
}

# Far above anything useful; beyond it AdamW's own factors overflow a float32.
_LARGEST = 1e6

# RandAugment's scale has so many steps (torchvision's default).
_MAGNITUDES = 30


def _word(name: str) -> str:
    return f"the {name.replace('_', ' ')}" if name != "epochs" else "the number of epochs"
