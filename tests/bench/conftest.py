"""Small model files to measure."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from vit_edge.runtime.preprocess import Preprocessing

from ..runtime.onnx_writer import METADATA, colour_model

Result = TypeVar("Result")

LARGE_SIDE = 768


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Give a model that takes 8x8 pixels."""
    path = tmp_path / "small.onnx"
    path.write_bytes(colour_model())
    return path


@pytest.fixture
def middle(tmp_path: Path) -> Path:
    """Give another that takes 8x8 pixels."""
    path = tmp_path / "middle.onnx"
    path.write_bytes(colour_model(gain=2))
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Give a model that takes nearly ten thousand times as many pixels."""
    text = f"resize={LARGE_SIDE},crop={LARGE_SIDE},interpolation=bicubic,mean=0.5,std=0.5"
    path = tmp_path / "large.onnx"
    path.write_bytes(
        colour_model(replace(METADATA, preprocessing=Preprocessing.parse(text)), side=LARGE_SIDE)
    )
    return path
