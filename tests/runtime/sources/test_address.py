"""Whatever is shown of an address, its credentials are not in it."""

import pytest

from vit_edge.runtime.sources.address import redact, redact_pipeline, remove_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://10.0.0.7:554/stream1", "rtsp://10.0.0.7:554/stream1"),
        ("rtsp://porter:secret@10.0.0.7/stream1", "rtsp://10.0.0.7/stream1"),
        ("rtsp://porter:se@cr/et@10.0.0.7/stream1", "rtsp://10.0.0.7/stream1"),
        ("http://secret@host/", "http://host/"),
        ("http://host/video?user=porter&pwd=secret", "http://host/video?…"),
        ("http://porter:sec?ret@host/video", "http://host/video"),
        ("clip.mp4", "clip.mp4"),
    ],
)
def test_an_address_is_shown_without_credentials(address: str, shown: str) -> None:
    """Also where the password holds what an address should not: too much hidden is better than too little."""
    assert redact(address) == shown


def test_a_pipeline_is_shown_without_credentials() -> None:
    """Elements take them as properties as well as in addresses."""
    pipeline = 'rtspsrc location="rtsp://porter:secret@host/1" user-id=porter user-pw="sec ret" ! decodebin ! appsink'
    shown = redact_pipeline(pipeline)
    assert shown == 'rtspsrc location="rtsp://host/1" user-id=… user-pw=… ! decodebin ! appsink'


def test_another_programs_words_are_cleaned() -> None:
    """FFmpeg repeats what it was given, in whole or in part, as it is or decoded."""
    address = "http://porter:s%40fe-secret@host/video?token=abcdef"
    said = f"opening {address}: user porter, password s@fe-secret or s%40fe-secret, abcdef"
    assert remove_secrets(said, address) == "opening http://host/video?…: user …, password … or …, …"
