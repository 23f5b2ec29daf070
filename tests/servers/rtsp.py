"""An RTSP server whose pictures carry the time at which they were made; run by Debian's Python, which has GStreamer.

It writes one line, the port it listens on, as soon as it serves. Usage: see the options at the bottom.
"""

import argparse
import threading
import time
from typing import Any

import gi
from clock import STRIP, strip_row

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max=30 ! "
    "rtph264pay name=pay0 pt=96 config-interval=1",
    "jpeg": "jpegenc quality=85 ! rtpjpegpay name=pay0 pt=26",
}


def picture(width: int, height: int, number: int, time_s: float) -> bytes:
    """Draw an I420 picture: the clock above a gradient that moves."""
    strip = height // STRIP
    ramp = bytes(16 + 200 * (column + 4 * number) % (2 * width) // (2 * width) for column in range(width))
    chroma = width * height // 4
    drawn: bytes = (
        strip_row(time_s, width) * strip + ramp * (height - strip) + b"\x70" * chroma + b"\x90" * chroma
    )
    return drawn


def feed(source: Any, width: int, height: int, fps: int) -> None:
    """Push a picture every 1 / fps seconds until nobody takes them."""
    start, number = time.monotonic(), 0
    while True:
        number += 1
        time.sleep(max(0.0, start + number / fps - time.monotonic()))
        data = picture(width, height, number, time.monotonic())
        if source.emit("push-buffer", Gst.Buffer.new_wrapped(data)) != Gst.FlowReturn.OK:
            return


class Factory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """Makes one stream, which all clients share."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.set_shared(True)
        self.options = options

    def do_create_element(self, url: Any) -> Any:
        """Build the pipeline, from pictures to packets."""
        o = self.options
        caps = f"video/x-raw,format=I420,width={o.width},height={o.height},framerate={o.fps}/1"
        return Gst.parse_launch(
            f"( appsrc name=pictures is-live=true format=time do-timestamp=true block=false max-buffers=2 "
            f"leaky-type=downstream caps={caps} ! {ENCODERS[o.codec]} )"
        )

    def do_configure(self, media: Any) -> None:
        """Start drawing for it."""
        o = self.options
        source = media.get_element().get_by_name("pictures")
        threading.Thread(target=feed, args=(source, o.width, o.height, o.fps), daemon=True).start()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    for name, kind in {"port": int, "width": int, "height": int, "fps": int, "codec": str}.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    factory = Factory(options)
    if options.user:
        server.set_auth(basic_auth(factory, options.user, options.password))
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


def basic_auth(factory: Any, user: str, password: str) -> Any:
    """Ask for a user and a password before anything is told or sent."""
    permissions = GstRtspServer.RTSPPermissions()
    for right in ("access", "construct"):
        permissions.add_permission_for_role(user, f"media.factory.{right}", True)
    factory.set_permissions(permissions)
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", user)
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    return auth


if __name__ == "__main__":
    main()
