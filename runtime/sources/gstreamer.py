"""GStreamer pipelines, such as a Jetson's camera needs, through an OpenCV that was built with GStreamer."""

import shlex

import cv2

from ..address import redact_pipeline
from ..errors import SourceError
from .live import LiveSource
from .opencv import CaptureDevice, open_video
from .source import Capture, GoneError

_SIZE, _FPS = (1280, 720), 30

# What takes the pictures out; it keeps the newest alone.
_SINK = "appsink drop=true max-buffers=1 sync=false"
_TO_SINK = f"videoconvert ! video/x-raw,format=BGR ! {_SINK}"


def jetson_pipeline(sensor: int, capture: Capture) -> str:
    """Give the pipeline of a camera on a Jetson's CSI connector.

    >>> print(jetson_pipeline(0, Capture(size=(1920, 1080), fps=30)).split(" ! ")[1])
    video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1
    """
    width, height = capture.size or _SIZE
    rate = round(capture.fps or _FPS)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={rate}/1 ! "
        f"nvvidconv ! video/x-raw,format=BGRx ! {_TO_SINK}"
    )


def open_pipeline(pipeline: str, *, capture: Capture, name: str | None = None) -> LiveSource:
    """Open a pipeline; one without an appsink gets one that keeps the newest picture alone.

    Raises:
        SourceError: This OpenCV has no GStreamer, or the pipeline doesn't run.
    """
    name = name or redact_pipeline(pipeline)
    if "appsink" not in pipeline:
        pipeline = f"{pipeline} ! {_TO_SINK}"
    if cv2.CAP_GSTREAMER not in cv2.videoio_registry.getBackends():
        raise SourceError(
            f"{name} needs an OpenCV with GStreamer, and this one ({cv2.__version__}) has none: take the one of the "
            "system (JetPack's, or Debian's python3-opencv) in an environment made with --system-site-packages"
        )

    def open_device() -> CaptureDevice:
        video = open_video(pipeline, cv2.CAP_GSTREAMER)
        if video is None:
            raise GoneError("it does not run")
        return CaptureDevice(video)

    def explain(reason: str | None) -> str:
        reason = reason or f"no picture within {capture.open_s:g} s"
        shown = shlex.quote(redact_pipeline(pipeline).replace(_SINK, "fakesink"))
        return f"{name} gives no video ({reason}); see what `gst-launch-1.0 {shown}` says"

    return LiveSource(name, open_device, capture=capture, explain=explain)
