"""A limit on connections and a watch over stalled ones, around uvicorn's own protocol.

uvicorn bounds neither how many clients connect without asking anything, nor how long one leaves its answer unread.
Only the callbacks that asyncio documents for every protocol are used here.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# Far more than one browser opens (six), and far fewer than the files that a process may have open.
_CONNECTIONS = 48

# A page asks again within seconds, and a browser that reads at all takes some of a picture within this time.
_SILENT_S = 20.0
_STALLED_S = 8.0
_LOOK_EVERY_S = 1.0


# What the kernel takes of an answer before a browser has read it: small, so that a stall shows, and its memory is ours.
_SEND_BYTES = 1 << 17

# How the system writes the two numbers of SO_LINGER.
_LINGER = "hh" if sys.platform == "win32" else "ii"


class _Watched:
    """An open connection: when it last sent something, and since when its answer lies unread."""

    def __init__(self, transport: asyncio.Transport, now_s: float) -> None:
        self.transport = transport
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self.heard_s = now_s
        self.unread = 0
        self.stalled_since_s = now_s

    def lost(self, now_s: float) -> bool:
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or unread != self.unread:
            self.unread, self.stalled_since_s = unread, now_s
        return now_s - self.heard_s > _SILENT_S or now_s - self.stalled_since_s > _STALLED_S

    def cut(self) -> None:
        # The kernel forgets what was not read, instead of keeping it for a peer that may never read.
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))
        self.transport.abort()


class Guard:
    """Holds every open connection, drops those that stall, and drops all at the end."""

    def __init__(self) -> None:
        self._open: dict[object, _Watched] = {}

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> None:
        """Begin to look after connections, in the server's thread."""
        asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def drop_all(self) -> None:
        """Cut every connection, whether or not it has read its answer."""
        for watched in tuple(self._open.values()):
            watched.cut()

    def protocol(self) -> Callable[..., asyncio.Protocol]:
        """Give uvicorn's protocol with this guard around it, as ``Config(http=...)`` takes it."""
        guard = self

        class Guarded(H11Protocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                guard._made(self, transport)
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                guard._heard(self)
                super().data_received(data)

            def connection_lost(self, exc: Exception | None) -> None:
                guard._open.pop(self, None)
                super().connection_lost(exc)

        return Guarded

    def _made(self, protocol: Any, transport: asyncio.Transport) -> None:
        if len(self._open) >= _CONNECTIONS:
            # The newest comer wins over the one that has been silent the longest.
            silent = min(self._open, key=lambda key: self._open[key].heard_s)
            self._open.pop(silent).cut()
        self._open[protocol] = _Watched(transport, self._now())

    def _heard(self, protocol: Any) -> None:
        if watched := self._open.get(protocol):
            watched.heard_s = self._now()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _look(self) -> None:
        now_s = self._now()
        for watched in tuple(self._open.values()):
            if watched.lost(now_s):
                watched.cut()
        self.start()
