"""The errors that a user of the runtime can cause: one sentence each, with the next step in it."""


class VitEdgeError(Exception):
    """Base of every error that a user can cause; its text is one sentence for that user."""


class ImageError(VitEdgeError):
    """An image that cannot be read or is not one."""


class ModelError(VitEdgeError):
    """A model file that is absent, damaged, or lacks what the runtime needs to give right answers."""


class ProviderError(VitEdgeError):
    """An execution provider that is missing, or that did not take the model."""


class SourceError(VitEdgeError):
    """A camera, stream, video or folder that is absent, busy or forbidden, or that gives no pictures."""


class WatchError(VitEdgeError):
    """Options of a loop that are out of range or do not go together."""


class SinkError(VitEdgeError):
    """A window, recording or other output that cannot be opened, or can no longer be written."""
