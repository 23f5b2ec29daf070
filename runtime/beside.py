"""Loads OpenCV while a session opens: each takes half of the time to the first answer, and neither needs the other.

That is why no module of this folder that `classifier` needs imports OpenCV at its head.
"""

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def beside_opencv(work: Callable[[], T]) -> T:
    """Do some work; where OpenCV is not loaded yet, in a thread of its own while this one loads it.

    Args:
        work: Spends its time in native code that leaves the interpreter free, as opening a session does.

    Returns:
        What the work returns; what it raises is raised here.
    """
    if "cv2" in sys.modules:
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        # Whatever it is, it belongs to whoever called.
        except BaseException as error:
            errors.append(error)

    # A daemon: Ctrl-C must not wait for a provider that compiles for minutes.
    thread = threading.Thread(target=run, name="vit-edge-open", daemon=True)
    thread.start()
    try:
        import cv2  # noqa: F401
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return results[0]
