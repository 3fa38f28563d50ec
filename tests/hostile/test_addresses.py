"""Where a webhook may lead: nowhere but out into the world, however the way is spelled."""

import asyncio
import socket

import pytest

from gradgauge.errors import InvalidInput
from gradgauge.jobs import post
from gradgauge.jobs.addresses import is_public, target

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "ff02::1",
]
# Names and spellings that the resolver takes for an address of this machine or its network.
SPELLINGS = ["localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0"]
NO_URLS = [
    "",
    "x",
    "//example.com/",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://example.com/",
    "javascript:alert(1)",
    "http://",
    "http:///path",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com/#fragment",
    "http://example.com\\@127.0.0.1/",
    "http://example.com/a b",
    "http://example.com/\r\nHost: evil",
    "http://example.com/\x00",
    "http://example.com:99999/",
    "http://example.com:x/",
    "http://[::1",
    "http://ex\u0430mple.com/",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_inside_is_not_public(address):
    assert not is_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidInput):
        post.refuse_private(target(f"http://{host}/"))


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_an_address_outside_is(address):
    assert is_public(address)


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_web_address_is_refused(url):
    with pytest.raises(InvalidInput) as told:
        target(url)
    assert told.value.code == "invalid_url"


@pytest.mark.parametrize("host", SPELLINGS)
def test_another_spelling_of_this_machine_is_refused_once_it_is_looked_up(host):
    with pytest.raises(post.NotSent) as told:
        asyncio.run(post.post(target(f"http://{host}:9/"), {}, b""))
    assert told.value.code in {"webhook_address_refused", "webhook_unreachable"}
    assert "127" not in told.value.message


def resolver(monkeypatch, *answers):
    """Each look-up gets the next answer; returns what was looked up."""
    asked = []

    async def getaddrinfo(_loop, host, port, **_):
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], []]
)
def test_one_address_inside_is_one_too_many(monkeypatch, addresses):
    resolver(monkeypatch, addresses)
    with pytest.raises(post.NotSent) as told:
        asyncio.run(post.post(target("http://rebind.example/"), {}, b""))
    assert told.value.code == "webhook_address_refused"


def test_a_name_is_looked_up_once_and_that_address_is_the_one_connected_to(monkeypatch):
    """A second answer, of an address inside, is never asked for."""
    asked, went = resolver(monkeypatch, ["8.8.8.8"], ["127.0.0.1"]), []

    async def open_connection(host, port, **_):
        went.append((host, port))
        raise OSError

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    with pytest.raises(post.NotSent):
        asyncio.run(post.post(target("https://rebind.example/"), {}, b""))
    assert (asked, went) == (["rebind.example"], [("8.8.8.8", 443)])
