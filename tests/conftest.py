"""What many tests share: real digits, a small network that has learnt them, and its exported file.

The fixtures import what they need when they are first asked for, so that the runtime's tests can run where neither
torch nor scikit-learn is installed.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vit_edge.export import Export

# Programs that tests start, one of them with the system's own Python; they are no modules of this one.
collect_ignore = ["servers"]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The classes of the digits, in the order of the network's outputs, which is not the alphabet's."""

# Images of each class; scikit-learn has 174 or more of every digit.
_PARTS = {"train": 100, "calibrate": 8, "test": 12}

# A pixel of scikit-learn's digits goes from 0 to 16.
_LEVELS = 16


def listing(folder: Path) -> list[str]:
    """Give the names of all that is in a folder, hidden files as well."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests measure out of the user's cache, and what the user measured out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_reach_children() -> None:
    """Let the programs that tests start hear signals, though behind nohup or in a shell's background they are ignored.

    A program inherits that a signal is ignored, but not what else is done about it: here nothing, as before.
    """
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Run a test's torch on one thread."""
    with _one_torch_thread():
        yield


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """So small a network gains nothing from more, and on a busy machine they wait for each other at every step."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def digits_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of real handwritten digits, 32x32 PNG: train, calibrate and test, each a folder per class."""
    import cv2
    import numpy as np
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    images, classes = load_digits(return_X_y=True)
    for target, name in enumerate(DIGITS):
        places = iter(np.flatnonzero(classes == target))
        for part, count in _PARTS.items():
            (folder / part / name).mkdir(parents=True)
            for place in (next(places) for _ in range(count)):
                pixels = (images[place].reshape(8, 8) * (255 / _LEVELS)).round().astype(np.uint8)
                pixels = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(folder / part / name / f"{place:04}.png"), pixels)
    return folder


@pytest.fixture(scope="session")
def digits_checkpoint(digits_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the checkpoint of a small ViT that has learnt the digits: labels and preprocessing are inside."""
    from vit_edge.data import labelled_images
    from vit_edge.models import ViTConfig
    from vit_edge.runtime.labels import Labels
    from vit_edge.runtime.preprocess import Preprocessing
    from vit_edge.training import BEST, Recipe, decode, fit, gather, new_model, open_run

    labels = Labels.of(DIGITS)
    preprocessing = Preprocessing(32, (32, 32), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    sets = []
    for part in ("train", "calibrate"):
        samples = labelled_images(digits_images / part, labels)
        sets.append(gather(decode(samples, preprocessing), len(samples), preprocessing))
    config = ViTConfig((32, 32), patch_size=8, width=64, depth=3, heads=2, mlp_width=128, classes=10)
    recipe = Recipe(epochs=14, batch_size=32, learning_rate=3e-3, shift=0, zoom=0, label_smoothing=0)
    run = open_run(tmp_path_factory.mktemp("run"))
    with _one_torch_thread():
        for _ in fit(new_model(config, seed=0), *sets, labels=labels, recipe=recipe, run=run):
            pass
    return run / BEST


@pytest.fixture(scope="session")
def digits_export(
    digits_images: Path, digits_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> "Export":
    """Give what exporting that checkpoint to INT8 told, with both folders of images."""
    from vit_edge.checkpoint import load_checkpoint
    from vit_edge.export import Export, Options, Source, run
    from vit_edge.export.network import TorchNetwork

    checkpoint = load_checkpoint(digits_checkpoint)
    assert checkpoint.labels is not None
    assert checkpoint.preprocessing is not None
    with _one_torch_thread():
        *_, result = run(
            TorchNetwork(checkpoint.model),
            labels=checkpoint.labels,
            preprocessing=checkpoint.preprocessing,
            output=tmp_path_factory.mktemp("model") / "digits.onnx",
            source=Source(digits_checkpoint.name, checkpoint.sha256, checkpoint.config.to_dict()),
            calibrate=digits_images / "calibrate",
            check=digits_images / "test",
            # So small a network is hardly faster in INT8, and which one wins is chance.
            options=Options(precision="int8", min_speedup=0),
        )
    assert isinstance(result, Export)
    return result


@pytest.fixture(scope="session")
def digits_model(digits_export: "Export") -> Path:
    """Give the INT8 file of the network that has learnt the digits."""
    return digits_export.path
