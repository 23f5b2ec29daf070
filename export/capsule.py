"""Makes the capsule of a model file: chooses its pictures, and records what the workshop makes of them."""

import random
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from ..data import list_images
from ..evaluation import compare
from ..runtime.capsule import Capsule, Picture, Print, resize_chart
from ..runtime.cores import usable_cores
from ..runtime.image import read_image
from ..runtime.preprocess import Preprocessing, crop_pixels, normalise
from ..runtime.resize import resize
from ..runtime.session import PROVIDERS
from .elsewhere import Elsewhere
from .graph import takes_bytes
from .images import Images, Runner, Tick
from .network import Network
from .scenes import scene

MADE_BY_CODE = "made by code"

# So many scenes are painted, and so many of them kept.
_PAINTED, _KEPT_SCENES = 24, 4

# So many of a folder's pictures are kept, chosen from so many at least.
_KEPT_PHOTOS, _TRIED_PHOTOS = 8, 32

# The smaller side of a picture is at most this long, in pixels.
_MAX_SIDE = 512

# JPEG's quality, of 1..100: artefacts are in a picture as on any device, and its crop still packs well.
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Packed:
    """What a file's capsule holds: where its pictures come from, how many, and the bytes that it takes."""

    set: str
    pictures: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {"set": self.set, "pictures": self.pictures, "bytes": self.bytes}


@dataclass(frozen=True, slots=True, eq=False)
class Packer:
    """Pictures with the reference's answers, to put into every file of an export.

    Attributes:
        set: Where they come from.
        reference: Whose answers they carry, for the file.
        preprocessing: From an image to the network's input.
        pictures: None of them where there is to be no capsule.
    """

    set: str
    reference: str
    preprocessing: Preprocessing
    pictures: tuple[Picture, ...]

    def __call__(
        self, model: onnx.ModelProto, elsewhere: Elsewhere | None
    ) -> Generator[Tick, None, tuple[str | None, Packed | None]]:
        """Measure a finished graph on the pictures, and give the text of its capsule.

        Args:
            model: The graph.
            elsewhere: Where the provider that it is for is at hand; None where the CPU provider stands in.
        """
        if not self.pictures:
            return None, None
        crops = [picture.crop for picture in self.pictures]
        given = np.stack(
            crops if takes_bytes(model) else [normalise(crop, self.preprocessing) for crop in crops]
        )
        if elsewhere is None:
            run = Runner(model)
            logits = np.concatenate([run(one[None]) for one in given])
        else:
            with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
                stored = Path(folder, "pixels.npy")
                np.save(stored, given)
                logits = yield from elsewhere.answers(model, stored, threads=usable_cores())
        found = compare(np.stack([picture.logits for picture in self.pictures]), logits)
        text = Capsule(
            reference=self.reference,
            set=self.set,
            provider=PROVIDERS["cpu"] if elsewhere is None else elsewhere.target.provider_name,
            drift=found.drift,
            max_abs_drift=found.max_abs_drift,
            chart=Print.of(crop_pixels(resize_chart(), self.preprocessing)),
            pictures=self.pictures,
        ).to_text()
        return text, Packed(self.set, len(self.pictures), len(text.encode()))


def pack(
    choice: int | Path | None, network: Network, preprocessing: Preprocessing, fitting: Images
) -> Generator[Tick, None, Packer]:
    """Choose pictures, and have the network answer them.

    Args:
        choice: None paints them; a folder gives 8 of its own; a number takes so many of *fitting*, 0 none.
        network: The reference.
        preprocessing: From an image to its input.
        fitting: The images that the export is measured on.

    Returns:
        Of many pictures, the one or the few with the narrowest margins between the reference's first two answers,
        where small differences show, and clear ones with answers of all kinds.
    """
    if choice == 0:
        return Packer("", network.kind, preprocessing, ())
    if choice is None:
        name, count, total = MADE_BY_CODE, _KEPT_SCENES, _PAINTED
        jpegs = _painted(preprocessing)
    else:
        if isinstance(choice, Path):
            name, paths, count = choice.name, list_images(choice), _KEPT_PHOTOS
        else:
            name, paths, count = fitting.name, tuple(fitting.paths), choice
        total = min(len(paths), max(_TRIED_PHOTOS, 2 * count))
        jpegs = _photos(random.Random(0).sample(paths, total))
    pictures = []
    for done, (title, jpeg) in enumerate(jpegs, start=1):
        pixels = read_image(jpeg)
        crop = crop_pixels(pixels, preprocessing)
        logits = network.logits(normalise(crop, preprocessing)[None])[0]
        pictures.append(Picture(title, jpeg, Print.of(pixels), crop, logits))
        yield Tick("pictures of the capsule", done, total)
    return Packer(name, network.kind, preprocessing, _choose(pictures, count))


def _painted(preprocessing: Preprocessing) -> Iterator[tuple[str, bytes]]:
    """Paint scenes a fourth larger than what they are resized to, so that there is something to resize."""
    side = preprocessing.resize if isinstance(preprocessing.resize, int) else max(preprocessing.resize)
    height = min(_MAX_SIDE, side * 5 // 4)
    for seed in range(_PAINTED):
        # All are wider than high or the other way round, and none is a square.
        sides = (height, height * 5 // 4) if seed % 3 else (height * 5 // 4, height)
        yield f"scene {seed}", _jpeg(scene(seed, *sides))


def _photos(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Shrink photos and encode them anew: what a camera notes beside a picture, such as the place, stays behind.

    Their file names stay behind as well.
    """
    for number, path in enumerate(paths, start=1):
        photo = read_image(path)
        height, width = photo.shape[:2]
        shrink = _MAX_SIDE / min(height, width)
        if shrink < 1:
            photo = resize(photo, (max(1, round(height * shrink)), max(1, round(width * shrink))))
        yield f"photo {number}", _jpeg(photo)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    assert done
    return data.tobytes()


def _choose(pictures: Sequence[Picture], count: int) -> tuple[Picture, ...]:
    """Take a fourth of narrow margins, and of the others the clearest, first one of each answer."""
    ordered = sorted(pictures, key=lambda picture: picture.margin)
    # Of a single picture the answer should be clear.
    narrow = max(count // 4, 1 if count > 1 else 0)
    clear = ordered[narrow:][::-1]
    seen: set[int] = set()
    firsts, others = list[Picture](), list[Picture]()
    for picture in clear:
        answer = int(picture.logits.argmax())
        (others if answer in seen else firsts).append(picture)
        seen.add(answer)
    return (*ordered[:narrow], *(firsts + others)[: max(0, count - narrow)])
