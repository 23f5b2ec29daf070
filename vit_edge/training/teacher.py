"""A trained network whose answers another one learns."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import TrainingError
from ..runtime.labels import Labels
from ..runtime.preprocess import Preprocessing


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network that answers what a student sees.

    Attributes:
        model: Maps (images, 3, height, width) to logits, in evaluation mode, on the student's device.
        preprocessing: What it was trained on.
        places: (classes,) int64, for each class of the student its place among the teacher's outputs.
    """

    model: nn.Module
    preprocessing: Preprocessing
    places: Tensor

    def stamp(self) -> str:
        """Give a digest that is another one where its answers are."""
        digest = hashlib.blake2b(f"{self.preprocessing} {self.places.tolist()}\n".encode(), digest_size=32)
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor, preprocessing: Preprocessing) -> Tensor:
        """Answer images that were normalised for the student: (images, classes) logits in the student's order."""
        mean, std = channels(preprocessing)
        own_mean, own_std = channels(self.preprocessing)
        pixels = images * std.to(images) + mean.to(images)
        if pixels.shape[-2:] != self.preprocessing.crop:
            pixels = functional.interpolate(
                pixels, size=self.preprocessing.crop, mode="bicubic", antialias=True
            ).clamp(0, 1)
        logits: Tensor = self.model((pixels - own_mean.to(images)) / own_std.to(images))
        return logits[:, self.places.to(logits.device)]


def class_places(teacher: Labels, student: Labels) -> Tensor:
    """Give, for each class of the student, its place among the teacher's.

    Raises:
        TrainingError: The teacher does not know a class.
    """
    found = [teacher.find(label.name) for label in student.items]
    if unknown := [label.name for label, place in zip(student.items, found, strict=True) if place is None]:
        shown = ", ".join(map(repr, unknown[:3]))
        raise TrainingError(
            f"the teacher does not know {shown}{f' and {len(unknown) - 3} more' if len(unknown) > 3 else ''} "
            f"of the student's {len(student)} classes; fine-tune a teacher on the same classes first"
        )
    return torch.tensor(found)


def channels(preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Give mean and deviation as (3, 1, 1) float32, for pixels from 0 to 1."""
    return torch.tensor(preprocessing.mean).view(3, 1, 1), torch.tensor(preprocessing.std).view(3, 1, 1)
