"""The sizes of networks: `ViTConfig` and the catalog."""

import json
import subprocess
import sys

import pytest

from vit_edge.errors import OptionError
from vit_edge.models import CATALOG, ViTConfig, named


def test_the_catalog_has_every_named_size_whose_patch_divides_its_image() -> None:
    """The names are what people type; 384 pixels are no multiple of 14, so those are left out."""
    expected = {
        f"vit_{size}_patch{patch}_{side}"
        for size in ("tiny", "small", "base", "large")
        for patch, side in ((14, 224), (16, 224), (32, 224), (16, 384), (32, 384))
    }
    assert set(CATALOG) == expected | {"vit_mini_patch4_28", "vit_mini_patch4_32"}


def test_the_textbook_size_is_the_papers() -> None:
    """ViT-Base/16 as the paper's table 1 has it, with the 86 million parameters that it states."""
    config = CATALOG["vit_base_patch16_224"]
    assert config == ViTConfig((224, 224), 16, 768, 12, 12, 3072, 1000)
    assert config.parameters == 86_567_656
    assert (config.grid, config.patches, config.tokens) == ((14, 14), 196, 197)


def test_a_named_size_takes_other_classes_and_another_image_size() -> None:
    """Fine-tuning keeps the network's sizes and changes these two."""
    config = named("vit_tiny_patch16_224", classes=7, image_size=(96, 128))
    assert (config.classes, config.image_size, config.width) == (7, (96, 128), 192)
    assert named("vit_tiny_patch16_224", classes=7, image_size=96).image_size == (96, 96)


def test_an_unknown_name_is_answered_with_the_nearest_one() -> None:
    """A typing error should cost one look."""
    with pytest.raises(OptionError, match="did you mean vit_tiny_patch16_224"):
        named("vit_tiny_patch16_242", classes=2)
    with pytest.raises(OptionError, match="`vit-edge models` lists"):
        named("resnet", classes=2)


def test_sides_that_the_patch_does_not_divide_are_refused_with_the_nearest_that_fit() -> None:
    """A network would otherwise ignore the last rows and columns of every image."""
    with pytest.raises(OptionError, match=r"patch of 16 pixels divides, got 230x100; the nearest are 224x96"):
        ViTConfig((230, 100), 16, 64, 2, 2, 128, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "expected width to be a whole number above 0, got 0"),
        ({"depth": 2.0}, "expected depth to be a whole number above 0, got 2.0"),
        ({"classes": True}, "expected classes to be a whole number above 0, got True"),
        ({"heads": 3}, "expected heads to divide the width of 64, got 3"),
        ({"image_size": 32}, r"expected image_size as a pair \(height, width\), got 32"),
        ({"image_size": [32, -32]}, "expected image width to be a whole number above 0, got -32"),
        ({"norm_eps": 0}, "expected norm_eps to be a number between 0 and 1, got 0"),
        ({"qkv_bias": 1}, "expected qkv_bias to be true or false, got 1"),
        ({"rope": True}, "hold rope, unknown here"),
    ],
)
def test_sizes_that_make_no_network_are_refused(change: dict[str, object], message: str) -> None:
    """Sizes come out of files too, and must fail here, not deep inside torch."""
    values = ViTConfig((32, 32), 8, 64, 2, 2, 128, 10).to_dict() | change
    with pytest.raises(OptionError, match=message):
        ViTConfig.from_dict(values)


def test_sizes_survive_json() -> None:
    """A checkpoint keeps them as JSON, where a pair becomes a list."""
    config = ViTConfig((32, 64), 8, 64, 2, 2, 128, 10, qkv_bias=False, norm_eps=1e-12)
    assert ViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(OptionError, match="lack depth, heads"):
        ViTConfig.from_dict({k: v for k, v in config.to_dict().items() if k not in ("depth", "heads")})


def test_sizes_are_known_without_torch() -> None:
    """`vit-edge models` lists them on a machine where torch is not installed."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from vit_edge.models import CATALOG\n"
        "print(CATALOG['vit_tiny_patch16_224'].parameters)\n"
        "try:\n"
        "    from vit_edge.models import ViT\n"
        "except ImportError as error:\n"
        "    print('torch' in str(error))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["5717416", "True"]
