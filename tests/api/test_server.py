"""Deadlines for what a client has to send: real sockets, short patience."""

import contextlib
import json
import socket
import threading
import time

import pytest

from gradgauge.api.address import check_address, listen
from gradgauge.api.server import (
    Deadlines,
    PatientProtocol,
    Server,
    configuration,
)
from gradgauge.errors import InvalidInput
from gradgauge.settings import Settings

HUNG_UP = "Broken pipe|reset by peer"
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


class Hasty(PatientProtocol):
    deadlines = Deadlines(head_s=1.0, body_s=1.0, body_bytes=100, linger_s=1.0)


class LessHasty(PatientProtocol):
    deadlines = Deadlines(head_s=9.0, body_s=3.0, body_bytes=100, linger_s=1.0)


async def echo(scope, receive, send):
    """Answers with the body's length; at /now before the body has come; at /slow after 1.5 s."""
    import asyncio

    size, more = 0, scope["path"] != "/now"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(1.5)
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]}
    )
    await send({"type": "http.response.body", "body": b"%7d" % size})


@pytest.fixture(scope="module")
def address():
    with served(Hasty) as listening:
        yield listening


@contextlib.contextmanager
def served(protocol):
    import asyncio

    config = configuration(echo)
    config.http, config.lifespan = protocol, "off"
    server = Server(config, asyncio.Event())
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join(10)
    listening.close()


@contextlib.contextmanager
def connected(address, *pieces, pause=0.0):
    with socket.create_connection(address, timeout=60) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        yield sock


def read_all(sock):
    held = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            held += piece
    return held


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET",
        b"GET / HTTP/1.1\r\nHost: localho",
        HEAD + b"Content-Length: 1000\r\n\r\n",
        HEAD + b"Content-Length: 1000\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_a_half_sent_request_is_hung_up_on(address, sent):
    began = time.monotonic()
    with connected(address, sent) as sock:
        assert read_all(sock) == b""
    assert 0.9 < time.monotonic() - began < 30


def drip(sock, data, pause_s=0.05):
    for byte in data:
        sock.sendall(bytes([byte]))
        time.sleep(pause_s)


def test_a_head_that_drips_is_hung_up_on_all_the_same(address):
    with connected(address) as sock, pytest.raises(OSError, match=HUNG_UP):
        drip(sock, b"GET / HTTP/1.1\r\nHost: " + b"a" * 100)


def test_a_body_that_drips_is_hung_up_on(address):
    head = HEAD + b"Content-Length: 1000\r\n\r\n"
    with connected(address, head) as sock, pytest.raises(OSError, match=HUNG_UP):
        drip(sock, b"a" * 100)


def test_a_slow_body_that_keeps_coming_is_waited_for():
    pieces = [b"a" * 100] * 18  # which take longer than the time for each 100 bytes
    head = HEAD + b"Content-Length: 1800\r\nConnection: close\r\n\r\n"
    with served(LessHasty) as address, connected(address, head, *pieces, pause=0.2) as sock:
        assert read_all(sock).endswith(b"   1800")


def test_a_slow_answer_is_the_servers_own_time(address):
    sent = b"GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connected(address, sent) as sock:
        assert read_all(sock).endswith(b"      0")


def test_a_connection_serves_several_requests(address):
    one = HEAD + b"Content-Length: 3\r\n\r\nabc"
    with connected(address, one, one, pause=0.2) as sock:
        sock.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert read_all(sock).count(b"200 OK") == 3


def test_who_sends_on_after_the_answer_is_hung_up_on(address):
    with connected(
        address, b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"
    ) as sock:
        assert b"200 OK" in sock.recv(65536)
        with pytest.raises(OSError, match=HUNG_UP):
            drip(sock, b"a" * 100)


def test_a_body_that_comes_after_its_answer_leaves_the_connection_open(address):
    """`/slow` answers later than a body that nobody wants is waited for."""
    with connected(address, b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n") as sock:
        assert b"200 OK" in sock.recv(65536)
        sock.sendall(
            b"abcPOST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        assert b"200 OK" in read_all(sock)


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000]
)
def test_what_is_not_http_gets_a_problem_document(address, sent):
    with connected(address, sent) as sock:
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_request"


def test_hundreds_of_half_open_connections_are_closed_and_others_served(address):
    held = [socket.create_connection(address) for _ in range(300)]
    try:
        for sock in held:
            with contextlib.suppress(ConnectionError):  # hung up on before the last was opened
                sock.sendall(b"GET /")
        with connected(address, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") as sock:
            assert b"200 OK" in read_all(sock)
        deadline = time.monotonic() + 60
        for sock in held:
            sock.settimeout(max(0.01, deadline - time.monotonic()))
            assert read_all(sock) == b""
    finally:
        for sock in held:
            sock.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_other_addresses_than_loopback_are_refused_plainly(host):
    with pytest.raises(InvalidInput, match="no API keys"):
        check_address(Settings(host=host))


def test_a_taken_port_is_said_to_be_taken():
    with listen(Settings(port=0)) as first, pytest.raises(InvalidInput) as refused:
        listen(Settings(port=first.getsockname()[1]))
    assert refused.value.code == "address_taken"
