"""Network addresses: which are taken, and how they are shown without their credentials."""

import re
from urllib.parse import unquote

SCHEMES = frozenset({"http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
"""The kinds of address whose video is read; ``file://`` is a path."""

HIDDEN = "…"
"""What stands where something secret was."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)

# In the text of a GStreamer pipeline.
_IN_PIPELINE = re.compile(
    r"(?P<name>user-?id|user-?pw|user(?:name)?|pass(?:word|phrase)?|token|proxy-pw|proxy-id)\s*=\s*"
    r"(?P<value>\"[^\"]*\"|'[^']*'|\S+)",
    re.IGNORECASE,
)


def scheme_of(text: str) -> str | None:
    """Give what stands before ``://``, in lower case; None where the text is no address."""
    found = _SCHEME.fullmatch(text)
    return found[1].lower() if found else None


def redact(address: str) -> str:
    """Give an address without credentials, for people: no user, no password, and nothing of its query.

    A password may hold any character, so all up to the last ``@`` goes, and some cameras take one in the query.

    >>> redact("rtsp://porter:p@ss/word@10.0.0.7:554/stream1?user=porter")
    'rtsp://10.0.0.7:554/stream1?…'
    """
    found = _SCHEME.fullmatch(address)
    if found is None:
        return address
    rest = found[2].rpartition("@")[2]
    path, mark, query = rest.partition("?")
    return f"{found[1]}://{path}{mark}{HIDDEN if query else ''}"


def redact_pipeline(pipeline: str) -> str:
    """Give a GStreamer pipeline without credentials.

    >>> redact_pipeline("rtspsrc location=rtsp://porter:secret@10.0.0.7/1 user-pw=secret ! decodebin")
    'rtspsrc location=rtsp://10.0.0.7/1 user-pw=… ! decodebin'
    """
    words = (
        re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://.*", lambda found: redact(found[0]), word)
        for word in pipeline.split(" ")
    )
    return _IN_PIPELINE.sub(rf"\g<name>={HIDDEN}", " ".join(words))


def remove_secrets(text: str, address: str) -> str:
    """Take out of another program's words whatever of an address is secret."""
    text = text.replace(address, redact(address))
    found = _SCHEME.fullmatch(address)
    secret = found[2].rpartition("@")[0] if found else ""
    query = address.partition("?")[2]
    parts = {secret, *secret.split(":", 1), query, *(part.partition("=")[2] for part in query.split("&"))}
    for part in sorted({*parts, *map(unquote, parts)} - {""}, key=len, reverse=True):
        text = text.replace(part, HIDDEN)
    return text
