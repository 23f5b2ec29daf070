"""The sink that serves the live page: it holds a server open in a thread of its own."""

import asyncio
import logging
import socket
import threading
from collections.abc import Collection, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import uvicorn

from ..errors import OptionError, PageError
from .address import DEFAULT_ADDRESS, is_loopback, join, listen, reachable_host
from .app import make_app, own_names
from .board import Board
from .guard import Guard

if TYPE_CHECKING:
    from ..runtime.answer import Answer

_LOG = logging.getLogger(__name__)

_SHORTEST_TOKEN = 8

# A browser that shows the last answer gets this long to ask again and hear that the run has ended; then it has as
# long to read that before it is cut off.
_FAREWELL_S = 0.2
_LONGEST_START_S = 20.0
_LONGEST_STOP_S = 5.0


class PageSink:
    """Shows answers on a page of the web, to any browser that may see it.

    The page is there within the ``with`` block. Browsers fetch the newest answer when they are ready for it, so that
    a slow one sees fewer answers and never older ones, and pictures are made only while someone looks.

    Example::

        with PageSink(about={"Labels": "1000"}) as page:
            print(page.url)
            for answer in answers:
                page.show(answer)
    """

    name = "live page"
    # Pictures are made of its answers, which is what gives way where answers have to be in time.
    costly = True

    def __init__(
        self,
        host: str = DEFAULT_ADDRESS[0],
        port: int = DEFAULT_ADDRESS[1],
        *,
        token: str | None = None,
        about: Mapping[str, Any] = MappingProxyType({}),
        names: Collection[str] = (),
    ) -> None:
        """Prepare the page; nothing listens yet.

        Args:
            host: A name or address of this machine; ``0.0.0.0`` or ``::`` for all of them.
            port: The port; 0 lets the system choose a free one.
            token: What a browser must know to see the page; needed where other machines can reach it.
            about: What the model file says of itself, by its title: text, numbers, lists, or mappings of these.
            names: Further host names under which browsers come, as those of a proxy.

        Raises:
            OptionError: The token is too short to protect anything.
        """
        if token is not None and len(token) < _SHORTEST_TOKEN:
            raise OptionError(
                f"expected a token of at least {_SHORTEST_TOKEN} characters, got {len(token)}; "
                "take a longer one, that nobody guesses"
            )
        self.host = host
        self.port = port
        self._token = token
        self._names = tuple(names)
        self._board = Board(dict(about))
        self._guard = Guard()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address to open, with the token in it; the port is the real one within the ``with`` block."""
        query = f"/?token={quote(self._token, safe='')}" if self._token else "/"
        return f"http://{join(reachable_host(self.host), self.port)}{query}"

    @property
    def serving(self) -> bool:
        """Whether browsers are answered at the moment."""
        return self._thread is not None and self._thread.is_alive()

    def show(self, answer: "Answer") -> bool:
        """Put up an answer; the newest one wins. Returns at once, whatever the browsers do.

        Args:
            answer: The answer; its image must not change afterwards.

        Returns:
            True: a page never asks the loop to stop.
        """
        self._board.put(answer)
        return True

    def __enter__(self) -> Self:
        """Open the port and begin to serve.

        Raises:
            OptionError: Other machines can reach the page, and there is no token.
            PageError: The port is taken or forbidden, or the host is not this machine's.
        """
        sockets = listen(self.host, self.port)
        try:
            if self._token is None and not is_loopback(sockets):
                raise OptionError(
                    f"whoever reaches {join(self.host, self.port)} would see the camera; "
                    "give a token, or take 127.0.0.1 to stay on this machine"
                )
            self.port = sockets[0].getsockname()[1]
            self._start(sockets)
        except BaseException:
            for opened in sockets:
                opened.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the browsers that the run has ended, and close the port."""
        self._board.close(wait_s=_FAREWELL_S if self.serving else 0.0)
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_LONGEST_STOP_S)
            if self._thread.is_alive():
                _LOG.warning("the live page did not stop; it ends with the program")
        self._server = self._thread = None

    def _start(self, sockets: list[socket.socket]) -> None:
        names = own_names(self.host, self._names)
        app = make_app(self._board, token=self._token, names=names, cookie=f"vit_edge_{self.port}")
        config = uvicorn.Config(
            app,
            http=self._guard.protocol(),  # type: ignore[arg-type]
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            # Requests may hold the token, and whoever scans the ports is no news.
            access_log=False,
            log_config=None,
            log_level="critical",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = _Server(config, self._board, self._guard)
        self._thread = threading.Thread(
            target=self._server.run_until_closed, args=(sockets,), name="vit-edge page", daemon=True
        )
        self._thread.start()
        if not self._server.ready.wait(_LONGEST_START_S) or self._server.failure is not None:
            self._server.should_exit = True
            reason = self._server.failure or "it did not start in time"
            raise PageError(
                f"the page cannot be served ({reason}); go on without it"
            ) from self._server.failure


class _Server(uvicorn.Server):
    """uvicorn, which says when it is ready and lets no open connection hold up its end."""

    def __init__(self, config: uvicorn.Config, board: Board, guard: Guard) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.failure: BaseException | None = None
        self._board = board
        self._guard = guard

    def run_until_closed(self, sockets: list[socket.socket]) -> None:
        try:
            self.run(sockets)
        # uvicorn leaves by SystemExit where it cannot start.
        except BaseException as error:
            self.failure = error
            _LOG.warning("the live page has stopped (%s: %s)", type(error).__name__, error)
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._board.serve_from(asyncio.get_running_loop())
        self._guard.start()
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(_FAREWELL_S, self._guard.drop_all)
        await super().shutdown(sockets)
