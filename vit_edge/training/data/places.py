"""Where tar shards lie: files, or addresses of a web server that gives parts of a file."""

import itertools
import os
import re
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import DataError

_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICES = re.compile(r"\{([^{}]*,[^{}]*)\}")

_WEB = ("http://", "https://")
_TIMEOUT_S = 60.0
_TRIES = 4
_WAIT_S = 0.25
_MOST_SHARDS = 1_000_000


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
        with _answered(urllib.request.Request(name, method="HEAD"), name) as response:
            told = [response.headers.get(key, "") for key in ("ETag", "Last-Modified", "Content-Length")]
        return f"{name} {' '.join(told)}"
    try:
        status = Path(name).stat()
    except OSError as error:
        raise DataError(f"the shard {name} cannot be read ({error.strerror}); check the pattern") from error
    return f"{Path(name).absolute()} {status.st_size} {status.st_mtime_ns}"


@contextmanager
def opened(name: str) -> Iterator[tarfile.TarFile]:
    """Open a shard to go through it once.

    Raises:
        DataError: It cannot be read, is damaged, or is compressed.
    """
    try:
        if is_web(name):
            with (
                _answered(urllib.request.Request(name), name) as response,
                tarfile.open(fileobj=response, mode="r|") as archive,
            ):
                yield archive
        else:
            with tarfile.open(name, "r:") as archive:
                yield archive
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"the shard {name} cannot be read ({error}); expected a tar file that is whole and not compressed"
        ) from error


def read(name: str, offset: int, size: int) -> bytes:
    """Read a part of a shard.

    Raises:
        OSError: It cannot be read.
    """
    if is_web(name):
        last = offset + size - 1
        request = urllib.request.Request(name, headers={"Range": f"bytes={offset}-{last}"})
        try:
            with _answered(request, name) as response:
                if response.status != 206:
                    raise OSError(
                        f"{name} comes from a server that gives no parts of files; download the shards"
                    )
                data: bytes = response.read()
                return data
        except DataError as error:
            raise OSError(str(error)) from error
    with Path(name).open("rb") as file:
        return os.pread(file.fileno(), size, offset)


@contextmanager
def _answered(request: urllib.request.Request, name: str) -> Iterator[Any]:
    """Ask a server, again after a while where it is busy or out of reach."""
    for tried in range(1, _TRIES + 1):
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if tried == _TRIES or error.code < 500:
                raise DataError(f"{name} cannot be had (HTTP {error.code}); check the address") from error
        except (urllib.error.URLError, TimeoutError) as error:
            if tried == _TRIES:
                raise DataError(
                    f"{name} cannot be had ({error}); check the address and the network"
                ) from error
        time.sleep(_WAIT_S * 2.0**tried)
    with response:
        yield response
