"""Addresses as people type them."""

import socket

import pytest

from vit_edge.errors import OptionError, PageError
from vit_edge.page import PageSink, new_token, parse_address
from vit_edge.page.address import is_local, is_loopback, join, listen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("camera.local:8000", ("camera.local", 8000)),
        ("camera.local", ("camera.local", 8000)),
        ("[::1]:9000", ("::1", 9000)),
        ("[::]", ("::", 8000)),
        ("[fe80::1%eth0]:9000", ("fe80::1%eth0", 9000)),
        (" localhost:0 ", ("localhost", 0)),
        ("65535", ("127.0.0.1", 65535)),
    ],
)
def test_an_address_is_read_as_typed(text: str, expected: tuple[str, int]) -> None:
    """IPv6 has colons of its own; a lone number is a port."""
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["8080", ":8080"])
def test_a_port_alone_stays_on_this_machine(text: str) -> None:
    """Nobody opens the camera to the network by leaving something out."""
    assert parse_address(text) == ("127.0.0.1", 8080)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "host:",
        "host:http",
        "host:-1",
        "host:+80",
        "host:8_0",
        "host:٨٠",
        "host:65536",
        "65536",
        "[::1",
        "[::1]:",
        "[::1]80",
        "[camera]:80",
        "http://host:80",
        "host:80/page",
        "a b:80",
        "user@host:80",
        "h:1:2",
        "a\x00b:80",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """A typing error must not become another address."""
    with pytest.raises(OptionError, match="expected"):
        parse_address(text)


@pytest.mark.parametrize("text", ["::1", "::1:8000", "fe80::1"])
def test_ipv6_without_brackets_is_told_to_have_them(text: str) -> None:
    """``::1:8000`` is an address without a port, and would be guessed wrong."""
    with pytest.raises(OptionError, match=r"in brackets: \[::"[:15]):
        parse_address(text)


def test_a_taken_port_is_one_sentence() -> None:
    """The second camera on a device meets this first."""
    with PageSink(port=0) as first, pytest.raises(PageError) as caught, PageSink(port=first.port):
        pass
    assert str(caught.value) == (
        f"the page cannot listen on 127.0.0.1:{first.port}: another program listens there; "
        "choose another port, or 0 for any free one"
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("203.0.113.7", "no such address"),
        ("no-such-host.invalid", "no name or address"),
        ("x" * 70, "no name or address"),
    ],
)
def test_a_host_that_is_not_here_is_one_sentence(host: str, reason: str) -> None:
    """The error of the system names neither the option nor a way out."""
    with pytest.raises(PageError, match=reason) as caught:
        listen(host, 0)
    assert "127.0.0.1" in str(caught.value)


def test_a_port_is_free_again_at_once() -> None:
    """A device that restarts its camera keeps its address; a closed connection would hold it for a minute."""
    with PageSink(port=0) as first, socket.create_connection(("127.0.0.1", first.port)):
        pass
    with PageSink(port=first.port) as second:
        assert second.port == first.port


def test_localhost_is_this_machine_alone() -> None:
    """It has two addresses on most machines, and browsers try either first: both get the same port."""
    sockets = listen("localhost", 0)
    try:
        assert is_loopback(sockets)
        assert is_local("localhost")
        assert len({opened.getsockname()[1] for opened in sockets}) == 1
    finally:
        for opened in sockets:
            opened.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no-such-host.invalid"])
def test_what_others_may_reach_is_not_local(host: str) -> None:
    """Where in doubt, a token is made."""
    assert not is_local(host)


def test_the_address_to_open_is_one_that_browsers_take() -> None:
    """IPv6 stands in brackets; the token may hold what an address gives a meaning to."""
    assert join("::1", 80) == "[::1]:80"
    assert PageSink("::1", 81).url == "http://[::1]:81/"
    assert (
        PageSink("camera.local", 81, token="a&b=c d#é").url
        == "http://camera.local:81/?token=a%26b%3Dc%20d%23%C3%A9"
    )
    # 0.0.0.0 stands for all addresses, and can be opened nowhere.
    assert "0.0.0.0" not in PageSink("0.0.0.0", 81, token=new_token()).url


def test_tokens_are_long_and_differ() -> None:
    """A token that can be guessed is none."""
    assert len(new_token()) >= 20
    assert new_token() != new_token()
