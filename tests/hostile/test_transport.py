"""Requests no HTTP library would write, byte by byte to the live server: refused, never a 500."""

import re
import socket

import pytest

HOST = b"Host: localhost\r\n"
GET = b"GET /v1/models HTTP/1.1\r\n"
POST = b"POST /v1/models HTTP/1.1\r\n"
END = b"\r\n"

# What no server should take for a request, or no proxy might read as we do.
MALFORMED = {
    "a line of garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + END,
    "no version": b"GET /v1/models\r\n" + END,
    "an odd version": b"GET /v1/models HTTP/9.9\r\n" + HOST + END,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a NUL in the path": b"GET /v1/mo\x00dels HTTP/1.1\r\n" + HOST + END,
    "a control character in the path": b"GET /v1/\x07 HTTP/1.1\r\n" + HOST + END,
    "a space in the path": b"GET /v1/ models HTTP/1.1\r\n" + HOST + END,
    "no host": GET + END,
    "two hosts": GET + HOST + b"Host: evil.example\r\n" + END,
    "a header without a colon": GET + HOST + b"Nonsense\r\n" + END,
    "a space before the colon": GET + HOST + b"X-A : b\r\n" + END,
    "an empty header name": GET + HOST + b": b\r\n" + END,
    "a NUL in a header": GET + HOST + b"X-A: a\x00b\r\n" + END,
    "a bare CR in a header": GET + HOST + b"X-A: a\rSet-Cookie: b\r\n" + END,
    "two lengths": POST + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n" + END + b"abcd",
    "a list of lengths": POST + HOST + b"Content-Length: 3, 4\r\n" + END + b"abcd",
    "a negative length": POST + HOST + b"Content-Length: -1\r\n" + END,
    "a signed length": POST + HOST + b"Content-Length: +3\r\n" + END + b"abc",
    "a hexadecimal length": POST + HOST + b"Content-Length: 0x3\r\n" + END + b"abc",
    "a length in other digits": POST + HOST + "Content-Length: ٣\r\n".encode() + END,
    "an endless length": POST + HOST + b"Content-Length: " + b"9" * 400 + b"\r\n" + END,
    "an unknown transfer coding": POST + HOST + b"Transfer-Encoding: gzip\r\n" + END,
    "a coding twice": POST + HOST + b"Transfer-Encoding: chunked, chunked\r\n" + END,
    "a chunk of no size": POST + HOST + b"Transfer-Encoding: chunked\r\n" + END + b"zz\r\nabc\r\n",
    "a chunk of negative size": POST + HOST + b"Transfer-Encoding: chunked\r\n" + END + b"-1\r\n",
    "a chunk longer than it says": (
        POST + HOST + b"Transfer-Encoding: chunked\r\n" + END + b"1\r\nabc\r\n0\r\n\r\n"
    ),
    "a head of 64 KiB": GET + HOST + b"X-A: " + b"a" * (64 << 10) + END + END,
    "a path of 64 KiB": b"GET /" + b"a" * (64 << 10) + b" HTTP/1.1\r\n" + HOST + END,
    "101 headers": GET + HOST + b"".join(b"X-%d: a\r\n" % i for i in range(101)) + END,
    "16 KiB in many headers": GET
    + HOST
    + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 400) for i in range(60))
    + END,
    "a foreign host": GET + b"Host: evil.example\r\n" + END,
    "a host that is none": GET + b"Host: [::1\r\n" + END,
    "a foreign origin": GET + HOST + b"Origin: http://evil.example\r\n" + END,
    "an origin of null": GET + HOST + b"Origin: null\r\n" + END,
    "a method of 300 letters": b"A" * 300 + b" /v1/models HTTP/1.1\r\n" + HOST + END,
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + END,
    "an echo": b"TRACE /v1/models HTTP/1.1\r\n" + HOST + END,
    "an asterisk": b"GET * HTTP/1.1\r\n" + HOST + END,
}


def exchange(service, sent):
    """All that comes back until the server hangs up or falls silent for half a minute."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        told = b""
        try:
            while piece := raw.recv(65536):
                told += piece
        except ConnectionError:
            pass
        return told


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_what_is_no_request_is_refused_and_nothing_else_is_answered(service, name):
    told = exchange(service, MALFORMED[name])
    status = told.split(b" ", 2)[1] if told else b"closed"
    assert status[:1] in (b"4", b"c"), (name, told[:300])
    # The preface of HTTP/2 was made to read as two requests.
    most = 2 if name == "the preface of HTTP/2" else 1
    answers = re.findall(rb"HTTP/1\.1 (\d{3}) ", told)
    assert len(answers) <= most, (name, told)
    assert all(each.startswith(b"4") for each in answers), (name, told)
    assert b"Traceback" not in told
    assert service.client.get("/healthz").status_code == 200


def test_a_request_hidden_in_another_s_body_is_not_answered(service):
    """Length and chunks at once: whichever counts, what follows is no request of its own."""
    hidden = b"GET /v1/capabilities HTTP/1.1\r\n" + HOST + END
    head = POST + HOST + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(hidden)
    told = exchange(service, head + END + b"0\r\n\r\n" + hidden)
    assert b'"report_formats"' not in told
    assert b"HTTP/1.1 5" not in told


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_compressed_body_is_not_unpacked(api, coding):
    import gzip

    packed = gzip.compress(b'{"model_id": "a"}')
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = api.post("/v1/analyses", content=packed, headers=headers)
    assert answer.status_code in {415, 422}


@pytest.mark.parametrize(
    "told",
    ["a\tb", "x" * 65, "ü", "<script>", "../../etc", "a b"],
)
def test_a_request_id_that_is_none_is_not_repeated(api, told):
    answer = api.get("/healthz", headers={"X-Request-ID": told.encode()})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != told
