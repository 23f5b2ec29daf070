"""Where the page listens: addresses as people type them, and the sockets behind them."""

import errno
import ipaddress
import re
import secrets
import socket
import sys
from collections.abc import Iterable

from ..errors import OptionError, PageError

DEFAULT_ADDRESS = ("127.0.0.1", 8000)
"""The host and port of the page unless told otherwise: this machine alone sees it."""

_EXPECTED = "expected HOST:PORT as in 127.0.0.1:8000, 0.0.0.0:8000 or [::1]:8000"
_LARGEST_PORT = 65535
_BACKLOG = 32


def parse_address(text: str) -> tuple[str, int]:
    """Read an address as people type it.

    A port alone (``8000`` or ``:8000``) stays on this machine; a host alone gets the usual port.

    Args:
        text: ``HOST:PORT``, ``HOST``, ``PORT`` or ``:PORT``; an IPv6 host stands in brackets: ``[::1]:8000``.

    Returns:
        The host, without brackets, and the port, 0..65535; 0 lets the system choose a free one.

    Raises:
        OptionError: The text is no address.

    >>> parse_address("0.0.0.0:8080"), parse_address("[::1]:8080"), parse_address("9000")
    (('0.0.0.0', 8080), ('::1', 8080), ('127.0.0.1', 9000))
    """
    host, port = _split(text.strip(), text)
    if not host:
        host = DEFAULT_ADDRESS[0]
    if not port:
        return host, DEFAULT_ADDRESS[1]
    # int() would take signs, spaces, underscores and the digits of every script.
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > _LARGEST_PORT:
        raise OptionError(f"expected a port of 0 to {_LARGEST_PORT}, got {port!r} in {text!r}")
    return host, int(port)


def new_token() -> str:
    """Make a token that nobody guesses: 128 random bits, good in an address."""
    return secrets.token_urlsafe(16)


def is_local(host: str) -> bool:
    """Tell whether only this machine can reach what listens on a host; no for a host that is not known.

    >>> is_local("127.0.0.1"), is_local("::1"), is_local("0.0.0.0")
    (True, True, False)
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return all(_is_loopback(str(address[0])) for *_, address in found)


def listen(host: str, port: int) -> list[socket.socket]:
    """Open the listening sockets of a host, one for each of its addresses, all with the same port.

    Raises:
        PageError: The port is taken or forbidden, or the host is none of this machine's.
    """
    shown = join(host, port)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise PageError(
            f"the page cannot listen on {shown}: {host!r} is no name or address that is known here "
            f"({_reason(error)}); take 127.0.0.1 for this machine alone or 0.0.0.0 for the network"
        ) from error
    # The same address may come once a protocol.
    places = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in places:
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bind(family, (address[0], chosen, *address[2:]), alone=len(places) == 1))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                failure = error
                break
            # `localhost` often has an IPv6 address where the kernel has no IPv6.
            failure = failure or error
    if failure is not None and (not sockets or failure.errno == errno.EADDRINUSE):
        for opened in sockets:
            opened.close()
        raise PageError(f"the page cannot listen on {shown}: {_advice(failure)}") from failure
    return sockets


def is_loopback(sockets: Iterable[socket.socket]) -> bool:
    """Tell whether only this machine can reach the sockets."""
    return all(_is_loopback(opened.getsockname()[0]) for opened in sockets)


def reachable_host(host: str) -> str:
    """Give a host that a browser elsewhere can open, for one that stands for every address of this machine."""
    try:
        address = ipaddress.ip_address(_bare(host))
    except ValueError:
        return host
    return _own_address(address.version) or socket.gethostname() if address.is_unspecified else host


def join(host: str, port: int) -> str:
    """Write a host and a port as in an address of the web: IPv6 in brackets."""
    return f"[{host.replace('%', '%25')}]:{port}" if ":" in host else f"{host}:{port}"


def _split(address: str, text: str) -> tuple[str, str]:
    if address.startswith("["):
        host, closed, rest = address[1:].partition("]")
        if not closed or not _is_ipv6(host) or (rest and not rest.startswith(":")) or rest == ":":
            raise OptionError(f"{_EXPECTED}, got {text!r}")
        return host, rest[1:]
    if re.fullmatch(r"[0-9]+", address):
        return "", address
    host, colon, port = address.rpartition(":") if ":" in address else (address, "", "")
    if ":" in host:
        hint = f"; write an IPv6 address in brackets: [{address}]" if _is_ipv6(address) else ""
        raise OptionError(f"{_EXPECTED}, got {text!r}{hint}")
    if (not host and not port) or (colon and not port) or re.search(r"[\s/@?#\\%\x00-\x1f]", host):
        raise OptionError(f"{_EXPECTED}, got {text!r}")
    return host, port


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(_bare(address)).is_loopback


def _bare(host: str) -> str:
    return host.partition("%")[0]


def _bind(family: int, address: tuple[object, ...], *, alone: bool) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let another program take over the port.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # A page that is started anew takes its port at once.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` alone means every address, of IPv4 too.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not (alone and address[0] == "::"))
        opened.bind(address)
        opened.listen(_BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; choose another port, or 0 for any free one"
    if error.errno == errno.EACCES:
        return "this user may not take that port; choose one above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; take 127.0.0.1 for this machine alone or 0.0.0.0 for the network"
    return f"{_reason(error)}; choose another address"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _own_address(version: int) -> str | None:
    # Choosing a route sends nothing; the addresses are those kept for documentation (RFC 5737 and RFC 3849).
    family, far = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None
