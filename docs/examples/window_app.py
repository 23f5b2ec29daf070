"""A window that shows a camera and what it sees, in Tkinter.

``python window_app.py model.onnx [SOURCE]``, where SOURCE is a camera's number (0 unless given), an address, a video or
a folder of images. A thread of its own classifies, so that the window answers at once however slow the model is, and
shows the newest picture only.
"""

import sys
import threading
import tkinter as tk

import cv2
import numpy as np
from numpy.typing import NDArray

from vit_edge.runtime import Classifier, Prediction, Source, VitEdgeError, open_source

SIZE = 640, 480
"""The most that the picture takes of the screen: width and height in pixels."""

REFRESH_MS = 30


class Worker(threading.Thread):
    """Classifies frames until it is stopped, and keeps the newest answer."""

    def __init__(self, classifier: Classifier, source: Source) -> None:
        super().__init__(daemon=True)
        self._classifier, self._source = classifier, source
        # One name, set at once: whoever reads it gets a picture and its own answer.
        self.newest: tuple[NDArray[np.uint8], Prediction] | None = None
        self.problem: str | None = None

    def run(self) -> None:
        """Go through the source."""
        try:
            for frame in self._source:
                self.newest = frame.image, self._classifier.classify_frame(frame.image, top=3)
        except VitEdgeError as error:
            self.problem = str(error)


class App:
    """The window."""

    def __init__(self, classifier: Classifier, source: Source) -> None:
        self._source = source
        self._classifier = classifier
        self._worker = Worker(classifier, source)
        self.root = tk.Tk()
        self.root.title(f"vit-edge: {source.name}")
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.picture = tk.Label(self.root, background="black")
        self.picture.pack()
        self.text = tk.Label(self.root, font=("TkDefaultFont", 16), justify=tk.LEFT, anchor=tk.W)
        self.text.pack(fill=tk.X, padx=8, pady=8)
        self._shown: object = None
        self._worker.start()
        self._refresh()

    def close(self) -> None:
        """Stop the source, and with it the worker; then the window goes."""
        self._source.close()
        self._worker.join(timeout=2)
        self.root.destroy()

    def _refresh(self) -> None:
        newest = self._worker.newest
        if self._worker.problem is not None:
            self.text.configure(text=self._worker.problem)
        elif newest is not None and newest is not self._shown:
            self._shown = newest
            self._show(*newest)
        self.root.after(REFRESH_MS, self._refresh)

    def _show(self, image: NDArray[np.uint8], prediction: Prediction) -> None:
        scale = min(SIZE[0] / image.shape[1], SIZE[1] / image.shape[0])
        size = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        # PPM is what Tk reads without any other library: a short head and the bytes.
        self._image = tk.PhotoImage(data=b"P6 %d %d 255\n" % size + small.tobytes())
        self.picture.configure(image=self._image)
        least = self._classifier.threshold or 0.0
        lines = [f"{100 * score.probability:5.1f} %  {score.label}" for score in prediction.top]
        if prediction.probability < least:
            lines.insert(0, "unknown; likeliest:")
        self.text.configure(text="\n".join(lines))


def main() -> None:
    """Open the model, the source and the window."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        with (
            Classifier(sys.argv[1], spinning=False) as classifier,
            open_source(sys.argv[2] if len(sys.argv) > 2 else "0") as source,
        ):
            App(classifier, source).root.mainloop()
    except VitEdgeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
