"""Loads OpenCV and tells what it can do."""

from typing import Any

from .child import give


def opencv() -> dict[str, Any]:
    """Load OpenCV; tell its windows, its ways to read video, and whether it draws more than ASCII."""
    import cv2

    built = _built(cv2.getBuildInformation())
    gui = cv2.currentUIFramework() if hasattr(cv2, "currentUIFramework") else ""
    registry = cv2.videoio_registry
    return {
        "version": cv2.__version__,
        "file": cv2.__file__,
        "gui": gui or built.get("GUI", "NONE"),
        "video": sorted(
            {
                registry.getBackendName(backend)
                for backend in registry.getBackends()
                if not hasattr(registry, "hasBackend") or registry.hasBackend(backend)
            }
        ),
        "threads": cv2.getNumThreads(),
        "unicode": _draws_unicode(),
    }


def _built(information: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in information.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def _draws_unicode() -> bool:
    """Tell whether two letters of different alphabets come out as two pictures: "?" and an empty box are one."""
    import cv2
    import numpy as np

    if not hasattr(cv2, "FontFace"):
        return False
    face = cv2.FontFace("sans")
    drawn = []
    for letter in ("é", "я", "漢"):
        picture = np.zeros((60, 60, 3), np.uint8)
        cv2.putText(picture, letter, (5, 45), (255, 255, 255), face, 30)
        drawn.append(picture.tobytes())
    return len({*drawn, bytes(60 * 60 * 3)}) == len(drawn) + 1


if __name__ == "__main__":
    give(opencv)
