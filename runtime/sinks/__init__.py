"""Where answers go: a window, JSON lines, a recorded video, a folder of frames; any of them together."""

from .fan import Fan, Sink
from .grab import GrabSink
from .lines import JsonSink, TextSink
from .record import RecordSink
from .window import WindowSink

__all__ = ["Fan", "GrabSink", "JsonSink", "RecordSink", "Sink", "TextSink", "WindowSink"]
