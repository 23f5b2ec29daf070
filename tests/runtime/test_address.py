"""Whatever is shown of an address, its credentials are not in it."""

from pathlib import Path

import pytest

from vit_edge.errors import SourceError
from vit_edge.runtime import Capture, open_source
from vit_edge.runtime.address import redact, redact_pipeline, remove_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://10.0.0.7:554/stream1", "rtsp://10.0.0.7:554/stream1"),
        ("rtsp://porter:secret@10.0.0.7/stream1", "rtsp://10.0.0.7/stream1"),
        ("rtsp://porter:se@cr/et@10.0.0.7/stream1", "rtsp://10.0.0.7/stream1"),
        ("http://secret@host/", "http://host/"),
        ("http://host/video?user=porter&pwd=secret", "http://host/video?…"),
        ("http://porter:sec?ret@host/video", "http://host/video"),
        (
            "rtsp://10.0.0.7/user=porter_password=se_cret_channel=1_stream=0.sdp?real_stream",
            "rtsp://10.0.0.7/user=…?…",
        ),
        ("rtsp://10.0.0.7/cgi/PWD=secret/stream#token=secret", "rtsp://10.0.0.7/cgi/PWD=…/stream#token=…"),
        ("rtmp://live.host/app/secret", "rtmp://live.host/app/…"),
        ("RTMPS://live.host/secret/", "RTMPS://live.host/…"),
        ("rtmp://live.host", "rtmp://live.host"),
        ("clip.mp4", "clip.mp4"),
    ],
)
def test_an_address_is_shown_without_credentials(address: str, shown: str) -> None:
    """Also where the password holds what an address should not: too much hidden is better than too little."""
    assert redact(address) == shown


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        (
            'rtspsrc location="rtsp://porter:sec ret@host/1?pwd=secret" user-id=porter user-pw="sec ret" ! appsink',
            'rtspsrc location="rtsp://host/1?…" user-id=… user-pw=… ! appsink',
        ),
        (
            r'souphttpsrc extra-headers="h,Authorization=\"Basic secret\"" cookies=<"a=secret","b=c"> ! appsink',
            "souphttpsrc extra-headers=… cookies=… ! appsink",
        ),
        (
            "rtspsrc extra-http-request-headers=h,Authorization='Basic secret' source::user-pw = secret ! appsink",
            "rtspsrc extra-http-request-headers=… source::user-pw=… ! appsink",
        ),
        (
            "rtmpsrc location='rtmp://host/app/secret' ! appsink",
            "rtmpsrc location='rtmp://host/app/…' ! appsink",
        ),
        ('a user-pw="secret ! appsink', "a user-pw=…"),
        ("v4l2src ! x264enc key-int-max=30 ! appsink", "v4l2src ! x264enc key-int-max=30 ! appsink"),
    ],
)
def test_a_pipeline_is_shown_without_credentials(pipeline: str, shown: str) -> None:
    """Elements take them as properties and headers as well as in addresses."""
    assert redact_pipeline(pipeline) == shown


def test_another_programs_words_are_cleaned() -> None:
    """FFmpeg repeats what it was given, in whole or in part, as it is or decoded."""
    address = "http://porter:s%40fe-secret@host/video?token=abcdef"
    said = f"opening {address}: user porter, password s@fe-secret or s%40fe-secret, abcdef"
    assert remove_secrets(said, address) == "opening http://host/video?…: user …, password … or …, …"


def test_another_programs_words_hold_nothing_of_a_path() -> None:
    """Recorders take a password there, and servers of broadcasts a key."""
    address = "rtsp://10.0.0.7/user=porter_password=secret_channel=1"
    assert remove_secrets("no user porter with secret in user=porter_password=secret_channel=1", address) == (
        "no user … with … in user=…"
    )
    assert remove_secrets("no stream abcd", "rtmp://host/live/abcd") == "no stream …"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        (" rtsp://porter:secret@127.0.0.1:1/stream\n", "rtsp://127.0.0.1:1/stream gives no video"),
        ("rtsp:/porter:secret@10.0.0.7/1", "rtsp:/…@10.0.0.7/1 does not exist"),
        (Path("rtsp://porter:secret@10.0.0.7/1"), "rtsp:/…@10.0.0.7/1 does not exist"),
        ("rtsp//porter:secret@10.0.0.7/1", "rtsp//…@10.0.0.7/1 does not exist"),
        ("porter:secret@10.0.0.7/1?x=1", "expected …@10.0.0.7/1?… to name images"),
        ("10.0.0.7/1?pwd=secret", "expected 10.0.0.7/1?… to name images"),
        ("rtps://porter:secret@10.0.0.7/1", "rtps://10.0.0.7/1 is no address that is known"),
        ("10.0.0.7/user=porter_password=secret_channel=1", "10.0.0.7/user=… does not exist"),
        ("rtmp:/host/app/secret", "rtmp:/host/app/… does not exist"),
        (
            "rtspsrc location=rtsp://porter:secret@10.0.0.7/1!decodebin",
            "…@10.0.0.7/1!decodebin does not exist",
        ),
        (
            "rtspsrc location=rtsp://10.0.0.7/1 user-pw=secret!decodebin",
            "rtspsrc location=rtsp://10.0.0.7/1 user-pw=…",
        ),
        (
            "rtsp://127.0.0.1:1/user=porter_password=secret_channel=1",
            "rtsp://127.0.0.1:1/user=… gives no video",
        ),
        ("rtmp://127.0.0.1:1/app/secret", "rtmp://127.0.0.1:1/app/… gives no video"),
        ("http://porter:[secret@127.0.0.1:1/clip.mp4", "http://127.0.0.1:1/clip.mp4 is damaged, or no video"),
        ("photos/image?.jpg", "expected photos/image?.jpg to name images"),
    ],
)
def test_what_cannot_be_opened_is_told_without_credentials(source: str | Path, shown: str) -> None:
    """A message is pasted into a forum before anyone looks at it; most of all that of a mistyped address."""
    with pytest.raises(SourceError) as caught:
        open_source(source, capture=Capture(open_s=3))
    text = str(caught.value)
    assert text.startswith(shown)
    assert "secret" not in text
    assert "porter" not in text
