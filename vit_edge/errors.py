"""The errors that a user of the workshop can cause, on top of the runtime's."""

from .runtime.errors import ImageError, ModelError, ProviderError, SourceError, VitEdgeError

__all__ = [
    "CheckpointError",
    "DataError",
    "ExportError",
    "ImageError",
    "ModelError",
    "OptionError",
    "PageError",
    "ProviderError",
    "SourceError",
    "TrainingError",
    "VitEdgeError",
]


class OptionError(VitEdgeError):
    """An option that is missing, malformed, or contradicts another."""


class CheckpointError(VitEdgeError):
    """Weights that cannot be read, are not a ViT that is known here, or lack something that must be given."""


class DataError(VitEdgeError):
    """A folder of images that does not hold what is needed."""


class ExportError(VitEdgeError):
    """A model that could not be exported, or that broke its bounds."""


class TrainingError(VitEdgeError):
    """A training run that cannot start or go on."""


class PageError(VitEdgeError):
    """A live page that cannot be served."""
