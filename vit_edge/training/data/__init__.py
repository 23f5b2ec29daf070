"""The images of a run: found in folders, lists, CIFAR's files or tar shards, read once, told about, and held ready."""

from .collection import Collection, Files, Part, Raw
from .prepare import LazySet, Prepared, Reading, prepare
from .report import DataReport, Inspection
from .shards import Shards
from .source import Data, open_data

__all__ = [
    "Collection",
    "Data",
    "DataReport",
    "Files",
    "Inspection",
    "LazySet",
    "Part",
    "Prepared",
    "Raw",
    "Reading",
    "Shards",
    "open_data",
    "prepare",
]
