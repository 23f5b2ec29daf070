"""Where tar shards lie: files, or addresses of a web server that gives parts of a file."""

import http.client
import itertools
import os
import re
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ...errors import DataError

_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICES = re.compile(r"\{([^{}]*,[^{}]*)\}")

_WEB = ("http://", "https://")
_TIMEOUT_S = 60.0
_TRIES = 4
_WAIT_S = 0.25
_MOST_SHARDS = 1_000_000
_TOO_MANY = 429  # requests for now, says the server

Result = TypeVar("Result")


def is_web(name: str) -> bool:
    """Whether a shard is an address."""
    return name.startswith(_WEB)


def expand(pattern: str) -> tuple[str, ...]:
    """Write a pattern of braces out, as a shell does.

    >>> expand("train-{08..10}.tar")
    ('train-08.tar', 'train-09.tar', 'train-10.tar')
    >>> expand("{a,b}-{0..1}.tar")
    ('a-0.tar', 'a-1.tar', 'b-0.tar', 'b-1.tar')

    Raises:
        DataError: A range goes down, or there would be more than a million.
    """
    parts: list[tuple[str, ...]] = []
    rest = pattern
    total = 1
    while match := min(
        filter(None, (_NUMBERS.search(rest), _CHOICES.search(rest))), key=lambda m: m.start(), default=None
    ):
        choices: tuple[str, ...]
        if match.re is _NUMBERS:
            first, last = int(match[1]), int(match[2])
            total *= max(0, last - first + 1)
            if not 0 < total <= _MOST_SHARDS:
                raise DataError(f"expected a range such as {{000..123}} in {pattern}, got {match[0]}")
            choices = tuple(f"{number:0{len(match[1])}}" for number in range(first, last + 1))
        else:
            choices = tuple(match[1].split(","))
            total *= len(choices)
        parts += [(rest[: match.start()],), choices]
        rest = rest[match.end() :]
    return tuple("".join(chosen) for chosen in itertools.product(*parts, (rest,)))


def stamp(name: str) -> str:
    """Give a text that is another one as soon as a shard is.

    Raises:
        DataError: There is no such shard.
    """
    if is_web(name):

        def ask() -> list[str]:
            with _opened(urllib.request.Request(name, method="HEAD")) as response:
                return [response.headers.get(key, "") for key in ("ETag", "Last-Modified", "Content-Length")]

        return f"{name} {' '.join(_patiently(ask, name))}"
    try:
        status = Path(name).stat()
    except OSError as error:
        raise DataError(f"the shard {name} cannot be read ({error.strerror}); check the pattern") from error
    return f"{Path(name).absolute()} {status.st_size} {status.st_mtime_ns}"


def through(name: str, work: Callable[[tarfile.TarFile], Result]) -> Result:
    """Go through a shard once, or from its beginning again where the line to a server is cut.

    Args:
        name: The shard.
        work: What is done with it.

    Raises:
        DataError: It cannot be read, is damaged, or is compressed.
    """

    def stream() -> Result:
        with (
            _opened(urllib.request.Request(name)) as response,
            tarfile.open(fileobj=_Whole(response), mode="r|") as archive,  # type: ignore[call-overload]
        ):
            return work(archive)

    try:
        if is_web(name):
            return _patiently(stream, name)
        with tarfile.open(name, "r:") as archive:
            return work(archive)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"the shard {name} cannot be read ({error}); expected a tar file that is whole and not compressed"
        ) from error


def read(name: str, offset: int, size: int) -> bytes:
    """Read a part of a shard.

    Raises:
        DataError: It cannot be read.
    """
    if is_web(name):
        last = offset + size - 1
        request = urllib.request.Request(name, headers={"Range": f"bytes={offset}-{last}"})

        def ask() -> bytes:
            with _opened(request) as response:
                if response.status != 206:
                    raise DataError(
                        f"{name} comes from a server that gives no parts of files; download the shards"
                    )
                part: bytes = response.read()
                return part

        data = _patiently(ask, name)
    else:
        try:
            with Path(name).open("rb") as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise DataError(f"the shard {name} cannot be read ({error.strerror}); check the disk") from error
    if len(data) != size:
        raise DataError(f"the shard {name} is shorter than it was when it was looked through; start anew")
    return data


class _Whole:
    """An answer that says so where it ends too early: a tar file that is cut between two members looks whole."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def read(self, size: int) -> bytes:
        data = self._response.read(size)
        if size and not data and self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)
        return data


def _opened(request: urllib.request.Request) -> http.client.HTTPResponse:
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    return response


def _patiently(ask: Callable[[], Result], name: str) -> Result:
    """Ask a server, again after a while where it is busy or out of reach, or the line was cut in its answer."""
    tried = 0
    while True:
        tried += 1
        try:
            return ask()
        except urllib.error.HTTPError as error:
            error.close()
            if tried == _TRIES or (error.code < 500 and error.code != _TOO_MANY):
                raise DataError(f"{name} cannot be had (HTTP {error.code}); check the address") from error
        # Refused and unknown are OSErrors; what ends in the middle is either.
        except (OSError, http.client.HTTPException) as error:
            if tried == _TRIES:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise DataError(
                    f"{name} cannot be had ({reason}); check the address and the network"
                ) from error
        time.sleep(_WAIT_S * 2.0**tried)
