"""Requests over real sockets: what is sent again, after how long, and what is raised."""

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import gradgauge_client as gg
from gradgauge_client import _errors
from gradgauge_client._http import Http, Request, posted
from tests.clients import fake_service
from tests.clients.fake_service import Answer, problem

GET = Request("GET", "/x")


@pytest.fixture
def http(service):
    """A connection whose `.pauses` are noted, not slept."""
    pauses = []
    connection = Http(service.url, "gg_key", timeout_s=5, pause=pauses.append)
    connection.pauses = pauses
    yield connection
    connection.close()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_tried_again_twice(service, http, status):
    service.script(
        "GET /x", problem(status, "busy"), problem(status, "busy"), Answer(200, {"a": 1})
    )
    assert http.json(GET) == {"a": 1}
    assert len(service.seen) == 3


def test_a_connection_that_breaks_is_tried_again_twice(service, http):
    service.script("GET /x", Answer(drop=True), Answer(drop=True), Answer(200, {}))
    assert http.json(GET) == {}
    assert len(http.pauses) == 2


def test_after_two_retries_the_trouble_is_told(service, http):
    service.script("GET /x", *[problem(503, "database_unreachable", "the database is away")] * 4)
    with pytest.raises(gg.ServerError, match=r"the database is away \(503, request req-1\)"):
        http.send(GET)
    assert len(service.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_refusal_is_not_tried_again(service, http, status):
    service.script("GET /x", problem(status, "no", limit="n=1", hint="ask less", node="/a/b"))
    with pytest.raises(_errors.BY_STATUS[status]) as told:
        http.send(GET)
    assert (told.value.status, told.value.code, told.value.request_id) == (status, "no", "req-1")
    assert str(told.value) == (
        f"no; where: /a/b; limit: n=1; hint: ask less ({status}, request req-1)"
    )
    assert len(service.seen) == 1


def test_a_request_whose_first_attempt_is_in_flight_is_tried_again(service, http):
    service.script("GET /x", problem(409, "idempotency_in_flight"), Answer(200, []))
    assert http.json(GET) == []


def test_one_idempotency_key_across_retries_and_another_for_the_next_request(service, http):
    service.script("POST /x", problem(503, "busy"), Answer(drop=True), Answer(200), Answer(200))
    http.send(posted("/x", {}))
    http.send(posted("/x", {}))
    keys = [seen.headers["idempotency-key"] for seen in service.seen]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert min(map(len, keys)) >= 32


def test_pauses_double_and_are_drawn_at_random(service, http):
    drawn = [[], []]
    for _ in range(20):
        service.script("GET /x", problem(503, "a"), problem(503, "a"), Answer(200))
        http.send(GET)
        drawn[0].append(http.pauses[-2])
        drawn[1].append(http.pauses[-1])
    assert 0.25 <= min(drawn[0]) < max(drawn[0]) <= 0.5
    assert 0.5 <= min(drawn[1]) < max(drawn[1]) <= 1.0


def test_retry_after_in_seconds_is_the_pause(service, http):
    busy = problem(429, "rate_limited")
    busy.headers["Retry-After"] = "7"
    service.script("GET /x", busy, Answer(200))
    http.send(GET)
    assert http.pauses == [7.0]


def test_retry_after_as_a_date_is_the_time_until_then(service, http):
    busy = problem(503, "starting")
    then = datetime.now(UTC) + timedelta(seconds=30)
    busy.headers["Retry-After"] = format_datetime(then, usegmt=True)
    service.script("GET /x", busy, Answer(200))
    http.send(GET)
    assert 25 < http.pauses[0] <= 30


@pytest.mark.parametrize("nonsense", ["soon", "-1", "1.5", "٣", ""])
def test_a_retry_after_that_is_none_leaves_the_pause_to_us(service, http, nonsense):
    busy = problem(503, "starting")
    busy.headers["Retry-After"] = nonsense.encode().decode("latin-1")
    service.script("GET /x", busy, Answer(200))
    http.send(GET)
    assert 0.25 <= http.pauses[0] <= 0.5


def test_a_retry_after_beyond_all_patience_is_told_at_once(service, http):
    busy = problem(429, "quota")
    busy.headers["Retry-After"] = "3600"
    service.script("GET /x", busy)
    with pytest.raises(gg.RateLimitError):
        http.send(GET)
    assert http.pauses == []


def test_the_key_goes_to_the_service_and_not_where_it_redirects(service, http):
    with fake_service.running() as elsewhere:
        away = Answer(307, {}, {"Location": f"{elsewhere.url}/x"})
        service.script("GET /x", away)
        with pytest.raises(gg.APIStatusError, match="307"):
            http.send(GET)
        assert elsewhere.seen == []
    assert service.seen[0].headers["authorization"] == "Bearer gg_key"


def test_a_service_below_a_path_is_reached_there(service):
    http = Http(f"{service.url}/gauge/", None)
    service.script("GET /gauge/v1/models", Answer(200, {"items": []}))
    assert http.json(Request("GET", "/v1/models")) == {"items": []}
    assert "authorization" not in service.seen[0].headers
    http.close()


@pytest.mark.parametrize("raw", [b"<html>hello</html>", b"", b"\xff\xfe"])
def test_an_answer_that_is_not_json_names_the_url(service, http, raw):
    service.script("GET /x", Answer(200, raw=raw))
    with pytest.raises(gg.APIResponseError, match=f"{service.url}/x answered 200"):
        http.json(GET)


@pytest.mark.parametrize(
    "raw", [b"<html>Bad Gateway</html>", b"[1]", b'{"detail": 3}', b"{" * 2_000_000]
)
def test_an_error_without_a_problem_document_is_still_typed(service, http, raw):
    service.script("GET /x", *[Answer(404, raw=raw)] * 3)
    with pytest.raises(gg.NotFoundError) as told:
        http.send(GET)
    assert told.value.code == ""
    assert "404" in str(told.value)


def test_nobody_listening_is_a_connection_error_that_names_the_url():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        http = Http(url, None, pause=lambda _: None)
        with pytest.raises(gg.APIConnectionError, match=url) as told:
            http.send(GET)
        assert not isinstance(told.value, gg.APITimeoutError)
        http.close()


def test_silence_is_a_timeout_after_every_attempt_had_its_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        http = Http(url, None, timeout_s=0.1, pause=lambda _: None)
        began = time.monotonic()
        with pytest.raises(gg.APITimeoutError, match="did not answer in time"):
            http.send(GET)
        assert 0.3 <= time.monotonic() - began < 30
        http.close()


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "http://", "http://x:99999", "//x"])
def test_a_url_that_is_none_is_told_before_anything_is_sent(url):
    with pytest.raises(ValueError, match=r"is not (a|the) URL"):
        Http(url, None)


def test_a_body_refused_half_way_is_the_refusal_and_not_a_broken_pipe():
    """RFC 9110 15.5.14: a server may answer 413 and close before the body has come."""

    def refuse():
        peer, _ = server.accept()
        with peer:
            peer.recv(1000)
            body = b'{"code": "upload_too_large", "detail": "larger than 10 bytes"}'
            head = f"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            peer.sendall(head.encode() + body)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(1 << 16):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse)
        thread.start()
        http = Http(f"http://127.0.0.1:{server.getsockname()[1]}", None)
        body = lambda: iter([b"x" * (1 << 20)] * 4)  # noqa: E731
        with pytest.raises(gg.ContentTooLargeError, match="larger than 10 bytes"):
            http.send(Request("POST", "/v1/models", body=body))
        http.close()
        thread.join()


def test_a_streamed_body_begins_again_at_each_attempt(service, http):
    service.script("POST /x", problem(503, "busy"), Answer(200))
    headers = {"Content-Length": "6"}
    http.send(Request("POST", "/x", headers=headers, body=lambda: iter([b"abc", b"def"])))
    assert [seen.body for seen in service.seen] == [b"abcdef", b"abcdef"]
    assert "transfer-encoding" not in service.seen[0].headers
