"""Network addresses: which are taken, and how they are shown without their credentials."""

import re
from urllib.parse import unquote

SCHEMES = frozenset({"http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
"""The kinds of address whose video is read; ``file://`` is a path."""

HIDDEN = "…"
"""What stands where something secret was."""

# A secret of fewer letters is looked for where no letter stands beside it.
_SHORT = 4

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)

# How a mistyped one begins: its scheme, and whatever of ``://`` is there.
_START = re.compile(rf"\s*(?:{'|'.join(sorted(SCHEMES | {'file'}, reverse=True))})(?::/*|/+)", re.IGNORECASE)

_NAME = r"(?:user(?:name)?|usr|login|pass(?:w(?:or)?d|phrase)?|pwd|token|key|secret|auth(?:orization)?)"

# In a path, as many recorders have it: /user=porter_password=secret_channel=1. A password may hold what would end it,
# so all up to the next part of the path goes.
_IN_PATH = re.compile(rf"(?P<name>{_NAME}\s*=)[^/?]+", re.IGNORECASE)

# The values themselves, as another program may repeat them.
_VALUE = re.compile(rf"{_NAME}\s*=([^/?&;,_]+)", re.IGNORECASE)

# A word of a GStreamer pipeline, in which quotes and angle brackets hold blanks together; an open quote takes all.
_WORD = r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|<[^>]*>|[^\s"'])*(?:["'].*)?"""
_WORDS = re.compile(_WORD, re.DOTALL)
_AT_END = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://.*?)([\"']?)\Z", re.DOTALL)

# In the text of a GStreamer pipeline.
_IN_PIPELINE = re.compile(
    rf"(?<!\S)(?P<name>[\w:-]*(?:user-?id|user-?pw|proxy-pw|proxy-id|{_NAME}|headers|cookies?))\s*=\s*{_WORD}",
    re.IGNORECASE | re.DOTALL,
)


def scheme_of(text: str) -> str | None:
    """Give what stands before ``://``, in lower case; None where the text is no address."""
    found = _SCHEME.fullmatch(text)
    return found[1].lower() if found else None


def path_of(address: str) -> str:
    """Give an address's path, as it stands there; nothing where it has none."""
    found = _SCHEME.fullmatch(address)
    _, slash, path = (found[2] if found else "").partition("/")
    return slash + re.split(r"[?#]", path, maxsplit=1)[0]


def redact(address: str) -> str:
    """Give an address without credentials, for people: no user, no password, and nothing of its query.

    A password may hold any character, so all up to the last ``@`` goes, and some cameras take one in the query or in
    the path. The last part of an RTMP path is a stream's key.

    >>> redact("rtsp://porter:p@ss/word@10.0.0.7:554/stream1?user=porter")
    'rtsp://10.0.0.7:554/stream1?…'
    >>> redact("rtsp://10.0.0.7/user=porter_password=secret_channel=1")
    'rtsp://10.0.0.7/user=…'
    """
    found = _SCHEME.fullmatch(address)
    if found is None:
        return address
    return _bare(f"{found[1]}://", found[2].rpartition("@")[2])


def redact_text(text: str) -> str:
    """Give what is no address, though it may have been meant for one, without what would be its credentials.

    >>> redact_text("rtsp:/porter:secret@10.0.0.7/1?user=porter")
    'rtsp:/…@10.0.0.7/1?…'
    >>> redact_text("photos/image?.jpg")
    'photos/image?.jpg'
    """
    found = _START.match(text)
    start = found[0] if found else ""
    before, mark, rest = text[len(start) :].rpartition("@")
    meant = bool(found) or (bool(mark) and ":" in before)
    if meant and mark:
        start, text = f"{start}{HIDDEN}@", rest
    else:
        text = text[len(start) :]
    # In a glob, a question mark is any letter.
    if meant or "=" in text.partition("?")[2]:
        text = _bare(start, text)
    else:
        text = start + _IN_PATH.sub(rf"\g<name>{HIDDEN}", text)
    return _IN_PIPELINE.sub(rf"\g<name>={HIDDEN}", text)


def redact_pipeline(pipeline: str) -> str:
    """Give a GStreamer pipeline without credentials.

    >>> redact_pipeline("rtspsrc location=rtsp://porter:secret@10.0.0.7/1 user-pw=secret ! decodebin")
    'rtspsrc location=rtsp://10.0.0.7/1 user-pw=… ! decodebin'
    """
    # First the properties: their values may hold blanks.
    pipeline = _IN_PIPELINE.sub(rf"\g<name>={HIDDEN}", pipeline)
    return _WORDS.sub(lambda word: _AT_END.sub(_redact_found, word[0]), pipeline)


def remove_secrets(text: str, address: str) -> str:
    """Take out of another program's words whatever of an address is secret.

    >>> remove_secrets("tcp://10.0.0.7?timeout=0: no user me (me:secret)", "rtsp://me:secret@10.0.0.7/1")
    'tcp://10.0.0.7?timeout=0: no user … (…)'
    """
    text = text.replace(address, redact(address))
    found = _SCHEME.fullmatch(address)
    secret = found[2].rpartition("@")[0] if found else ""
    path, _, query = (found[2].rpartition("@")[2] if found else address).partition("?")
    parts = {secret, *secret.split(":", 1), query, *(part.partition("=")[2] for part in query.split("&"))}
    for named in _IN_PATH.finditer(path):
        parts |= {named[0].partition("=")[2], *_VALUE.findall(named[0])}
    if found and _has_key(found[1]):
        parts.add(path.rstrip("/").partition("/")[2].rpartition("/")[2])
    for part in sorted({*parts, *map(unquote, parts)} - {""}, key=len, reverse=True):
        # A short one stands within many words.
        alone = r"(?<![A-Za-z]){}(?![A-Za-z])" if len(part) < _SHORT else "{}"
        text = re.sub(alone.format(re.escape(part)), HIDDEN, text)
    return text


def _redact_found(found: re.Match[str]) -> str:
    return redact(found[1]) + found[2]


def _bare(start: str, rest: str) -> str:
    """Put together what stands before an address's host, and what follows without the secrets in it."""
    path, mark, query = rest.partition("?")
    host, slash, path = path.partition("/")
    if _has_key(start):
        folder, between, key = path.rstrip("/").rpartition("/")
        path = f"{folder}{between}{HIDDEN if key else ''}"
    path = _IN_PATH.sub(rf"\g<name>{HIDDEN}", path)
    return f"{start}{host}{slash}{path}{mark}{HIDDEN if query else ''}"


def _has_key(start: str) -> bool:
    return start.strip().lower().startswith("rtmp")
