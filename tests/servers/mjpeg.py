"""An HTTP server of MJPEG whose pictures carry the time at which they were sent.

The next picture is drawn and compressed before its time has come, burned with that time, and leaves then: so its age
is all the receiver's. It writes one line, the port it listens on, as soon as it serves.
"""

import argparse
import base64
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
from clock import STRIP, strip_row

BOUNDARY = "picture"


def picture(width: int, height: int, number: int, time_s: float) -> bytes:
    """Draw and compress a picture: the clock above a gradient that moves."""
    strip = height // STRIP
    image = np.empty((height, width, 3), np.uint8)
    image[:strip] = np.frombuffer(strip_row(time_s, width), np.uint8)[None, :, None]
    ramp = 16 + 200 * ((np.arange(width) + 4 * number) % width) // width
    image[strip:] = np.stack([ramp, ramp[::-1], np.full(width, 90)], axis=1)[None]
    return cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()


class Handler(BaseHTTPRequestHandler):
    """Answers every request with the stream."""

    options: argparse.Namespace

    def do_GET(self) -> None:
        """Send pictures until the client goes, or there are as many as were asked for."""
        o = self.options
        expected = "Basic " + base64.b64encode(f"{o.user}:{o.password}".encode()).decode()
        if o.user and self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        if self.path.partition("?")[0] != "/camera":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace;boundary={BOUNDARY}")
        self.end_headers()
        start, number = time.monotonic(), 0
        try:
            while True:
                number += 1
                due = max(start + number / o.fps, time.monotonic())
                data = picture(o.width, o.height, number, due)
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                time.sleep(max(0.0, due - time.monotonic()))
                self.wfile.write(head.encode() + data + b"\r\n")
        except OSError:
            pass

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what the tests look at is the client."""


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    for name in ("port", "width", "height", "fps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    Handler.options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", Handler.options.port), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
