"""A real headless Chromium, driven by its DevTools protocol over a pair of pipes: no driver to install."""

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (apt-get install chromium) to see the page as people do"
)

_PATIENCE_S = 30.0
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--lang=en",
    "--remote-debugging-pipe",
)


class Browser:
    """One tab of a headless Chromium with a profile of its own."""

    def __init__(self) -> None:
        self._numbers = iter(range(1, 1_000_000))
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._session = ""
        self.messages: list[str] = []
        """What the page wrote on the console, and its errors."""

    def __enter__(self) -> Self:
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # Chromium takes commands on descriptor 3 and answers on 4.
        inherit = ("bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "bash")
        self._process = subprocess.Popen(
            [*inherit, CHROMIUM, *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and give its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._answers.get(timeout=_PATIENCE_S)
            if answer["id"] == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def show(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open an address in a window of a size, on a system that is light or dark."""
        self.look(width=width, height=height, dark=dark)
        self.call("Page.navigate", url=url)

    def look(self, *, width: int, height: int, dark: bool) -> None:
        """Change the window's size and the system's colours."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script: str) -> Any:
        """Give the value of a JavaScript expression in the page, awaited."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Give the text that an element shows, or nothing where there is none."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_for(self, script: str, *, seconds: float = 15.0) -> Any:
        """Wait until a JavaScript expression is true, and give its value; True for an element."""
        end_s = time.monotonic() + seconds
        while True:
            # A page that is just being replaced has no element yet.
            try:
                value = self.run(f"(value => value instanceof Node || value)({script})")
            except RuntimeError:
                value = None
            if value:
                return value
            assert time.monotonic() < end_s, f"{script} stayed {value!r}; the console said {self.messages}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        # Chromium acts on Enter by its code and the character that it types.
        text: dict[str, Any] = {"text": key} if len(key) == 1 else {}
        code = {"windowsVirtualKeyCode": 13} if key == "Enter" else {}
        if key == "Enter":
            text = {"text": "\r"}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, **code, **(text if kind == "keyDown" else {})
            )

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write what the tab shows as a PNG; the whole page, or the window."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _read(self) -> None:
        rest = b""
        while data := os.read(self._from, 1 << 20):
            *whole, rest = (rest + data).split(b"\0")
            for part in whole:
                message = json.loads(part)
                if "id" in message:
                    self._answers.put(message)
                elif message["method"] == "Log.entryAdded":
                    self.messages.append(message["params"]["entry"]["text"])
                elif message["method"] == "Runtime.exceptionThrown":
                    self.messages.append(str(message["params"]["exceptionDetails"]))
                elif message["method"] == "Runtime.consoleAPICalled":
                    self.messages.append(str(message["params"]["args"]))
