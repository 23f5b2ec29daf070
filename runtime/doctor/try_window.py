"""Opens a window and closes it at once: where the screen does not take it, Qt ends the process."""

from typing import Any

from .child import give


def window() -> dict[str, Any]:
    """Open an empty window."""
    import cv2

    cv2.namedWindow("vit-edge doctor", cv2.WINDOW_NORMAL)
    cv2.waitKey(1)
    cv2.destroyAllWindows()
    return {}


if __name__ == "__main__":
    give(window)
