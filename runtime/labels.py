"""The classes of a model, in the order of its outputs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .errors import ModelError

# A WordNet synset, as ImageNet's folders and label lists write it: part of speech and eight digits.
_SYNSET = r"^([nvars]\d{8})\s+(\S.*)$"


class Label(NamedTuple):
    """One class: the name that people read, and where there is one, its id in the data set (``n01440764``)."""

    name: str
    id: str | None = None

    @classmethod
    def parse(cls, line: str) -> "Label":
        """Read one line of a label file; a leading synset id becomes the class's id.

        >>> Label.parse("n01443537 goldfish, Carassius auratus")
        Label(name='goldfish, Carassius auratus', id='n01443537')
        >>> Label.parse("seven")
        Label(name='seven', id=None)
        """
        line = line.strip()
        match = re.match(_SYNSET, line)
        return cls(match[2], match[1]) if match else cls(line)

    def __str__(self) -> str:
        return f"{self.id} {self.name}" if self.id else self.name


@dataclass(frozen=True, slots=True)
class Labels:
    """All classes of a model: the label at place *i* belongs to output *i*."""

    items: tuple[Label, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise ModelError("expected at least one label, got none")
        if empty := [index for index, label in enumerate(self.items) if not label.name]:
            raise ModelError(f"label {empty[0]} is empty; give every class a name")

    @classmethod
    def of(cls, names: "Labels | Iterable[str | Label]") -> "Labels":
        """Make labels from names; strings are read as lines of a label file."""
        if isinstance(names, Labels):
            return names
        return cls(tuple(name if isinstance(name, Label) else Label.parse(name) for name in names))

    @classmethod
    def read(cls, path: str | Path) -> "Labels":
        """Read a label file: one class a line, in the order of the model's outputs.

        Raises:
            ModelError: The file cannot be read, is empty, or has an empty line between labels.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ModelError(
                f"the label file {path} is no text in UTF-8 ({error}); save it as such"
            ) from error
        except (OSError, ValueError) as error:  # a null character in the path is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise ModelError(f"cannot read the label file {path} ({reason}); check the path") from error
        lines = text.rstrip().splitlines()
        if not lines:
            raise ModelError(f"the label file {path} is empty; write one label a line")
        if empty := [number for number, line in enumerate(lines, 1) if not line.strip()]:
            raise ModelError(
                f"line {empty[0]} of the label file {path} is empty; give every class a name, one a line"
            )
        return cls.of(lines)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Label:
        return self.items[index]

    def find(self, name: str) -> int | None:
        """Give the place of the class that a folder's *name* means, or None.

        A synset id matches a class's id, alone or with the name behind it; anything else matches a whole name, or
        one of its comma-separated synonyms where no other class has it too. Letter case does not count, and ``_``
        stands for a space.
        A name that two classes have (ImageNet's two cranes) means neither: their ids tell them apart.
        """
        wanted = _fold(name)
        if not wanted:
            return None
        for index, label in enumerate(self.items):
            if label.id is not None and wanted in (_fold(label.id), _fold(str(label))):
                return index
        hits = [index for index, label in enumerate(self.items) if wanted == _fold(label.name)]
        if hits:
            names = [self.items[index].name for index in hits]
            return hits[0] if len(set(names)) == len(names) else None
        hits = [
            index
            for index, label in enumerate(self.items)
            if wanted in {_fold(synonym) for synonym in label.name.split(",")}
        ]
        return hits[0] if len(hits) == 1 else None


def _fold(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
