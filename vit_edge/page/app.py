"""What the page answers to a browser, and whom it refuses."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Iterable
from http import HTTPStatus
from importlib.resources import files

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .board import Board

_STATIC = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

# What the page that asks for the token needs; it holds nothing of the run.
_FREE = frozenset({"/style.css", "/icon.svg"})

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# A wrong token is answered late, and the guard keeps the connections few: guessing gets nowhere.
_PENALTY_S = 0.5


def make_app(board: Board, *, token: str | None, names: Iterable[str], cookie: str) -> ASGIApp:
    """Make the page's application.

    Args:
        board: Where the answers are.
        token: What a browser must know; None where none is needed.
        names: The host names under which the page may be opened, beside ``localhost`` and plain addresses.
        cookie: The cookie that holds the proof of the token.
    """

    async def answers(request: Request) -> Response:
        query = request.query_params
        body = await board.message(
            run=query.get("run", ""), after=_place(query.get("after")), since=_place(query.get("since"))
        )
        return Response(body, media_type="application/octet-stream")

    async def about(request: Request) -> Response:
        text = json.dumps(board.about, ensure_ascii=False, default=str)
        return Response(text.encode(errors="replace"), media_type="application/json")

    routes = [Route("/answers", answers), Route("/about", about), _file("/", "index.html", "text/html")]
    routes += [_file(f"/{name}", name, media_type) for name, media_type in _STATIC.items()]
    return Gate(Starlette(routes=routes), token=token, names=names, cookie=cookie)


class Gate:
    """Lets through the browsers that may see the page, and gives every answer the headers that protect it."""

    def __init__(self, app: ASGIApp, *, token: str | None, names: Iterable[str], cookie: str) -> None:
        self._app = app
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._token = None if token is None else _digest(token)
        # The cookie proves the token without holding it.
        self._proof = "" if token is None else hashlib.sha256(f"vit-edge page {token}".encode()).hexdigest()
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        request = Request(scope)
        answer = self._refusal(request) or await self._ask_token(request) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = _host_name(request.headers.get("host", ""))
        # A site whose name is made to point here (DNS rebinding) would be "the same origin" as this page.
        if not (
            host in self._names or host == "localhost" or host.endswith(".localhost") or _is_address(host)
        ):
            return PlainTextResponse(
                "This page is not served under that name; open it by the device's address.\n",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
        # Browsers say so where another site's page asks; following a link is no such asking.
        site = request.headers.get("sec-fetch-site", "none")
        followed = request.url.path == "/" and request.headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not followed:
            return PlainTextResponse("Other sites may not ask here.\n", HTTPStatus.FORBIDDEN)
        return None

    async def _ask_token(self, request: Request) -> Response | None:
        if self._token is None or request.url.path in _FREE:
            return None
        given = request.query_params.get("token")
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if given is None and scheme.lower() == "bearer":
            given = bearer.strip()
        if given is not None and hmac.compare_digest(_digest(given), self._token):
            return self._let_in() if request.url.path == "/" and "token" in request.query_params else None
        proof = request.cookies.get(self._cookie)
        # compare_digest takes ASCII text alone, and a cookie may hold anything.
        if given is None and proof and hmac.compare_digest(_digest(proof), _digest(self._proof)):
            return None
        if given is not None or proof:
            await asyncio.sleep(_PENALTY_S)
        return _ask(request, wrong=given is not None)

    def _let_in(self) -> Response:
        # The address that people see, keep and share is then one without the token.
        response = RedirectResponse("./", HTTPStatus.SEE_OTHER)
        # Lax: with Strict, whoever follows a link from a chat would be asked again.
        response.set_cookie(self._cookie, self._proof, path="/", httponly=True, samesite="lax")
        return response


def own_names(host: str, more: Iterable[str]) -> frozenset[str]:
    """Give the names under which this machine is reached: what it calls itself, also on the local network (mDNS)."""
    machine = socket.gethostname()
    return frozenset(name for name in (host, machine, f"{machine.partition('.')[0]}.local", *more) if name)


def _ask(request: Request, *, wrong: bool) -> Response:
    headers = {"WWW-Authenticate": "Bearer"}
    if request.url.path != "/":
        return PlainTextResponse("This needs the token.\n", HTTPStatus.UNAUTHORIZED, headers)
    page = _read("token.html")
    if wrong:
        page = page.replace(b"<!-- wrong -->", b'<p class="wrong" role="alert">That is not the token.</p>')
    return Response(page, HTTPStatus.UNAUTHORIZED, headers, "text/html")


def _file(path: str, name: str, media_type: str) -> Route:
    data = _read(name)

    async def give(request: Request) -> Response:
        return Response(data, media_type=media_type)

    return Route(path, give)


def _read(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()


def _host_name(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    # A plain address is nobody's name, so that no one can have made it point here.
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _digest(text: str) -> bytes:
    # Of one length whatever was given, so that the comparison tells nothing.
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def _place(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else 0
