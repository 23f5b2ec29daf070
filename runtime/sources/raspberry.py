"""Cameras of a Raspberry Pi, through picamera2."""

import time
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..frame import capture_time
from .live import LiveSource
from .source import Capture, GoneError

_SIZE = (1280, 720)


class _PiCamera:
    """An open ``Picamera2`` as a device of a live source."""

    def __init__(self, camera: Any, capture: Capture) -> None:
        self._camera = camera
        self.fps = capture.fps
        self._picture: NDArray[np.uint8] | None = None
        # libcamera names a format by its bytes in reverse, so this one is R, G, B in memory. Without a queue, what
        # is captured began after it was asked for.
        configuration = camera.create_video_configuration(
            main={"size": capture.size or _SIZE, "format": "BGR888"},
            controls={"FrameRate": capture.fps} if capture.fps else {},
            queue=False,
        )
        camera.configure(configuration)
        camera.start()

    def grab(self) -> float:
        """Wait for the next picture; give the sensor's time of capture."""
        try:
            request = self._camera.capture_request()
        except RuntimeError as error:
            raise GoneError(f"picamera2 says {error}") from error
        now_s = time.monotonic()
        try:
            self._picture = request.make_array("main")
            stamp_s = request.get_metadata().get("SensorTimestamp", 0) / 1e9
        finally:
            request.release()
        # The time since the system's start, which is that of the monotonic clock unless the system slept.
        return capture_time(stamp_s, now_s)

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Give it."""
        return self._picture

    def to_rgb(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give it as it is, which is RGB."""
        return np.ascontiguousarray(picture)

    def release(self) -> None:
        """Let go of the camera."""
        self._camera.close()


def open_raspberry(number: int, *, capture: Capture) -> LiveSource:
    """Open a Raspberry Pi's camera.

    Raises:
        SourceError: picamera2 is missing, or there is no such camera, or it is busy.
    """
    name = f"picamera {number}"
    try:
        # By name: it is no package of an index, and most devices have none.
        library = import_module("picamera2").Picamera2
    except ImportError as error:
        raise SourceError(
            f"{name} needs picamera2, which is not here ({error}); on a Raspberry Pi install it with `sudo apt install "
            "python3-picamera2`, and make the environment with `python3 -m venv --system-site-packages`"
        ) from error
    known = [camera.get("Model", "camera") for camera in library.global_camera_info()]
    if number >= len(known):
        here = ", ".join(f"picamera:{place} ({model})" for place, model in enumerate(known))
        raise SourceError(f"there is no {name}; " + (f"there is {here}" if known else "check its cable"))

    def open_device() -> _PiCamera:
        camera = None
        try:
            camera = library(number)
            return _PiCamera(camera, capture)
        except (RuntimeError, IndexError) as error:
            if camera is not None:
                camera.close()
            raise GoneError(f"picamera2 says {error}") from error

    def explain(reason: str | None) -> str:
        reason = reason or f"no picture within {capture.open_s:g} s"
        return f"{name} cannot be opened ({reason}); close what else uses it, and check its cable"

    return LiveSource(name, open_device, capture=capture, explain=explain)
