"""Where frames come from: cameras, streams, videos, images, pipes, or a program's own arrays."""

from .camera import Camera, cameras
from .choose import open_source
from .source import Capture, Gap, Source

__all__ = ["Camera", "Capture", "Gap", "Source", "cameras", "open_source"]
