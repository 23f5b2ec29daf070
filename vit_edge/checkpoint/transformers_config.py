"""transformers' config.json and preprocessor_config.json of a ViT."""

import math
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ..runtime.errors import ModelError
from ..runtime.labels import Label, Labels
from ..runtime.preprocess import Preprocessing
from ..runtime.resize import Interpolation
from .description import Description

_Colour = tuple[float, float, float]


def describe_transformers(config: Mapping[str, Any], processor: Mapping[str, Any] | None) -> Description:
    """Read what ``save_pretrained`` of a model and of its image processor wrote.

    Raises:
        CheckpointError: The model is not a plain ViT for classification.
    """
    if config["model_type"] != "vit":
        raise CheckpointError(
            f"its model_type {config['model_type']!r} is not supported; give one of type 'vit'"
        )
    # The exact GELU is transformers' "gelu"; its tanh and sigmoid versions leave no trace in a state dict.
    if (activation := config.get("hidden_act", "gelu")) != "gelu":
        raise CheckpointError(f"its hidden_act {activation!r} is not supported; give a ViT with 'gelu'")
    if config.get("problem_type") == "multi_label_classification":
        raise CheckpointError(
            "it gives several labels to an image, which is not supported; give one that gives one"
        )
    preprocessing, problem = (None, None) if processor is None else _preprocessing(processor)
    patch = config.get("patch_size", 16)
    return Description(
        labels=_labels(config.get("id2label")),
        preprocessing=preprocessing,
        problem=problem,
        # What a config leaves out has the default of transformers' ViTConfig.
        heads=config.get("num_attention_heads", 12),
        norm_eps=config.get("layer_norm_eps", 1e-12),
        image_size=_pair(config.get("image_size", 224)),
        sizes={
            "patch_size": _pair(patch)[0],
            "width": config.get("hidden_size", 768),
            "depth": config.get("num_hidden_layers", 12),
            "mlp_width": config.get("intermediate_size", 3072),
        },
    )


def _labels(id2label: Mapping[str, str] | None) -> Labels | None:
    """Give the classes by place; transformers' own LABEL_0, LABEL_1 … name nothing and count as absent."""
    if not id2label:
        return None
    places = {int(place): str(name) for place, name in id2label.items()}
    if sorted(places) != list(range(len(places))):
        raise CheckpointError("its id2label leaves out places; correct config.json")
    if all(name == f"LABEL_{place}" for place, name in places.items()):
        return None
    return Labels(tuple(Label.parse(places[place]) for place in range(len(places))))


def _preprocessing(processor: Mapping[str, Any]) -> tuple[Preprocessing | None, str | None]:
    """Give what ViTImageProcessor does; what its file leaves out has the class's default.

    A centre crop that leaves an odd number of pixels over starts at ``int(rest / 2)`` there and at
    ``round(rest / 2)`` here, as in torchvision: at most one pixel apart.
    """
    kind = (
        processor.get("image_processor_type")
        or processor.get("feature_extractor_type")
        or "ViTImageProcessor"
    )
    if not str(kind).startswith("ViT"):  # others have other defaults
        return None, f"its image processor {kind} is not supported; give --preprocess"
    if not processor.get("do_resize", True):
        return None, "its image processor does not resize, which is not supported; give --preprocess"
    size = processor.get("size", 224)
    size = {"height": size, "width": size} if isinstance(size, int) else size
    resize: int | tuple[int, int]
    if set(size) == {"height", "width"}:
        resize = (size["height"], size["width"])
    elif set(size) == {"shortest_edge"}:
        resize = size["shortest_edge"]
    else:
        return None, f"its image processor resizes to {size}, which is not supported; give --preprocess"
    if processor.get("do_center_crop"):
        crop = processor.get("crop_size", {})
        crop = _pair(crop) if isinstance(crop, int) else (crop.get("height", 0), crop.get("width", 0))
    elif isinstance(resize, int):
        return None, "its image processor resizes without a crop, which is not supported; give --preprocess"
    else:
        crop = resize
    code = processor.get("resample", 2)
    if code not in _FILTERS:
        return None, f"its filter of Pillow's number {code} is not supported; give --preprocess"
    mean, std = _normalisation(processor)
    try:
        return Preprocessing(
            resize=resize,
            crop=crop,
            interpolation=_FILTERS[code],
            mean=mean,
            std=std,
        ), None
    except ModelError as error:
        return None, f"its preprocessing is not supported: {error}"


def _normalisation(processor: Mapping[str, Any]) -> tuple[_Colour, _Colour]:
    """Fold (pixel · factor - mean) / std, of pixels 0..255, into a mean and std of pixels 0..1."""
    scale = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    if math.isclose(scale, 1, rel_tol=1e-9):  # the factor is 1/255, so mean and std stay as they were written
        scale = 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if processor.get("do_normalize", True):
        mean, std = (_triple(processor.get(key, 0.5)) for key in ("image_mean", "image_std"))
    return _scaled(mean, scale), _scaled(std, scale)


def _scaled(colour: _Colour, scale: float) -> _Colour:
    red, green, blue = colour
    return red / scale, green / scale, blue / scale


def _triple(values: Any) -> _Colour:
    red, green, blue = (values,) * 3 if isinstance(values, int | float) else values
    return red, green, blue


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


# Pillow's numbers for its filters; 0, the nearest pixel, is not antialiased.
_FILTERS: Mapping[int, Interpolation] = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
