"""Preprocessing is the one that the network was trained with, and says so when it cannot be."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vit_edge.errors import ImageError, ModelError
from vit_edge.runtime.preprocess import Preprocessing, crop_pixels, normalise, preprocess

from ..shared import SHARED, needs_shared

TEXT = "resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5"
IMAGENET = "resize=256,crop=224,interpolation=bilinear,mean=0.485/0.456/0.406,std=0.229/0.224/0.225"


def photos(step: int = 25) -> list[Image.Image]:
    """Ten real photos in many sizes, some grayscale."""
    images = []
    for path in sorted((SHARED / "data" / "calibration250").glob("*.JPEG"))[::step]:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    assert len(images) == 250 // step
    return images


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@needs_shared
@pytest.mark.parametrize(
    ("size", "crop_pct", "interpolation", "mean", "std", "text"),
    [
        (224, 0.9, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), TEXT),
        (224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), IMAGENET),
        (384, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3, TEXT.replace("248", "384").replace("224", "384")),
        (32, 0.95, "lanczos", (0.0,) * 3, (1.0,) * 3, "resize=33,crop=32,interpolation=lanczos,mean=0,std=1"),
    ],
)
def test_real_photos_give_what_timms_evaluation_transform_gives(
    size: int, crop_pct: float, interpolation: str, mean: tuple[float, ...], std: tuple[float, ...], text: str
) -> None:
    """The accuracy of timm's weights was measured with this transform; any other costs some of it."""
    transform = pytest.importorskip("timm.data").create_transform(
        input_size=(3, size, size),
        is_training=False,
        interpolation=interpolation,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
    )
    for photo in photos():
        np.testing.assert_allclose(
            preprocess(np.asarray(photo), Preprocessing.parse(text)),
            transform(photo).numpy(),
            rtol=0,
            atol=1e-6,
        )


@pytest.mark.parametrize("crop", [(224, 224), (223, 201), (224, 199)])
@pytest.mark.parametrize("resize", [248, 249, (231, 260)])
@pytest.mark.parametrize("size", [(300, 400), (401, 301), (300, 300), (60, 95), (700, 250), (248, 248)])
def test_the_crop_is_torchvisions_to_the_byte(
    size: tuple[int, int], resize: int | tuple[int, int], crop: tuple[int, int]
) -> None:
    """Odd sides, where the long side and the crop's corner are rounded, are where copies of it go wrong."""
    transforms = pytest.importorskip("torchvision.transforms")
    image = noise(*size)
    preprocessing = Preprocessing(resize, crop, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    transform = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(crop),
        ]
    )
    np.testing.assert_array_equal(
        crop_pixels(image, preprocessing), np.asarray(transform(Image.fromarray(image)))
    )


def test_every_byte_is_normalised_to_the_formula() -> None:
    """The table has an entry for each byte and channel; a swapped one would go unnoticed in a photo."""
    pixels = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    preprocessing = Preprocessing.parse(IMAGENET)
    expected = (pixels / 255 - preprocessing.mean) / preprocessing.std
    result = normalise(pixels, preprocessing)
    assert result.shape == (3, 16, 16)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected.transpose(2, 0, 1).astype(np.float32))


def test_normalising_agrees_with_torchvision() -> None:
    """That one computes in float32, step by step; the difference is its rounding and no more."""
    transforms = pytest.importorskip("torchvision.transforms")
    pixels = noise(40, 50)
    preprocessing = Preprocessing.parse(IMAGENET)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
    )
    expected = transform(Image.fromarray(pixels)).numpy()
    np.testing.assert_allclose(normalise(pixels, preprocessing), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (4000, 30)])
def test_an_image_of_any_shape_gives_the_networks_input(shape: tuple[int, int]) -> None:
    """A strip of one pixel is enlarged like any other image, and only the crop of it is computed."""
    result = preprocess(noise(*shape), Preprocessing.parse(TEXT))
    assert result.shape == (3, 224, 224)
    assert np.isfinite(result).all()


def test_text_is_read_and_written_back() -> None:
    """Files and error texts show the same words that the option takes."""
    for text in (
        TEXT,
        IMAGENET,
        "resize=256x192,crop=200x160,interpolation=box,mean=0.0,std=1.0",
        "resize=64,crop=64,interpolation=lanczos,mean=1e-07,std=0.00392156862745098",
    ):
        assert str(Preprocessing.parse(text)) == text


def test_spaces_order_and_letter_case_do_not_count() -> None:
    """People write the option by hand."""
    text = " std=.5, mean = 0.5/0.5/0.5, interpolation=BICUBIC, crop=224X224, resize=248 "
    assert Preprocessing.parse(text) == Preprocessing.parse(TEXT)


def test_one_number_stands_for_all_three_channels() -> None:
    """Most checkpoints outside ImageNet's own mean and std have one number."""
    assert Preprocessing.parse(TEXT) == Preprocessing(248, (224, 224), "bicubic", (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("text", [TEXT, IMAGENET, TEXT.replace("248", "256x240")])
def test_json_carries_it_unchanged(text: str) -> None:
    """The model file keeps it as JSON; a mean that is off in the last digit is another preprocessing."""
    preprocessing = Preprocessing.parse(text)
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resize=248,crop=224", "lacks interpolation, mean, std; give all five"),
        ("", "expected key=value in the preprocessing, got ''"),
        ("248", "expected key=value in the preprocessing, got '248'"),
        (TEXT + ",colour=1", "unknown key 'colour'; expected resize, crop, interpolation, mean, std"),
        (TEXT + ",std=1", "gives std twice"),
        (TEXT.replace("248", "big"), "expected resize to be one number or HEIGHTxWIDTH, .* got 'big'"),
        (TEXT.replace("248", "-248"), "expected resize to be one number or HEIGHTxWIDTH, .* got '-248'"),
        (TEXT.replace("224", "224.0"), "expected crop to be one number or HEIGHTxWIDTH, .* got '224.0'"),
        (TEXT.replace("224", "0"), "expected crop to be whole numbers of pixels above 0, got 0/0"),
        (TEXT.replace("bicubic", "cubic"), "expected interpolation to be one of box, .* got 'cubic'"),
        (
            TEXT.replace("mean=0.5", "mean=0.1/0.2"),
            "expected mean to be one number or three, .* got '0.1/0.2'",
        ),
        (TEXT.replace("mean=0.5", "mean=half"), "expected mean to be one number or three, .* got 'half'"),
        (TEXT.replace("mean=0.5", "mean=nan"), "expected mean to be three numbers from 0 to 1, got nan"),
        (
            TEXT.replace("mean=0.5", "mean=127.5"),
            "got 127.5/127.5/127.5; divide values meant for pixels of 0 to",
        ),
        (TEXT.replace("std=0.5", "std=0"), "expected std to be three numbers from above 0 to 1, got 0.0"),
        (TEXT.replace("std=0.5", "std=0.5/0/0.5"), "expected std to be three numbers from above 0 to 1"),
        (TEXT.replace("std=0.5", "std=-0.5"), "expected std to be three numbers from above 0 to 1"),
        (
            TEXT.replace("248", "223"),
            "expected a crop within the resized image, got crop 224x224 of resize 223",
        ),
        (TEXT.replace("248", "300x200"), "got crop 224x224 of resize 300x200; make resize at least as large"),
    ],
)
def test_a_text_that_says_too_little_or_nonsense_is_refused(text: str, message: str) -> None:
    """A default or a guess in its place would give wrong answers without a word."""
    with pytest.raises(ModelError, match=message):
        Preprocessing.parse(text)


@pytest.mark.parametrize(
    "change",
    [
        {"resize": 248.5},
        {"resize": True},
        {"resize": [248]},
        {"resize": None},
        {"crop": 224},
        {"crop": [224, "224"]},
        {"mean": 0.5},
        {"mean": [0.5, 0.5, "0.5"]},
        {"std": [0.5, 0.5]},
        {"interpolation": 3},
        {"interpolation": ["bicubic"]},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(change: dict[str, object]) -> None:
    """A model file may come from another tool, or a later version."""
    with pytest.raises(ModelError):
        Preprocessing.from_dict(Preprocessing.parse(TEXT).to_dict() | change)


@pytest.mark.parametrize("key", ["resize", "crop", "interpolation", "mean", "std"])
def test_a_record_that_lacks_a_key_is_refused_by_its_name(key: str) -> None:
    """The message must say what to add."""
    values = Preprocessing.parse(TEXT).to_dict()
    del values[key]
    with pytest.raises(ModelError, match=f"lacks {key}; give all five"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize("image", [np.zeros(8, np.uint8), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3))])
def test_what_is_no_colour_image_of_bytes_is_refused(image: NDArray[np.uint8]) -> None:
    """The error speaks of images, and not of a step deep within numpy."""
    preprocessing = Preprocessing.parse(TEXT)
    for function in (crop_pixels, normalise, preprocess):
        with pytest.raises(ImageError, match=r"expected an image of shape \(height, width, 3\)"):
            function(image, preprocessing)
