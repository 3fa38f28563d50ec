"""What every request passes: its host, origin, headers and id."""

import pytest

from tests.api.problem import problem
from tests.service import until


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1", "10.0.0.1"],
)
def test_a_name_that_is_not_ours_is_refused(api, host):
    problem(api.get("/v1/models", headers={"Host": host}), 403, "forbidden_host")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8000", "LOCALHOST:80"])
def test_every_name_of_this_machine_will_do(api, host):
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:1"]
)
def test_pages_of_other_origins_are_refused(api, origin):
    answer = api.post("/v1/models", content=b"x", headers={"Origin": origin})
    problem(answer, 403, "forbidden_origin")


def test_our_own_pages_may(api, service):
    assert api.get("/v1/models", headers={"Origin": service.url}).status_code == 200


def test_too_many_or_too_large_headers_are_431(api):
    many = {f"X-{i}": "a" for i in range(200)}
    problem(api.get("/healthz", headers=many), 431, "headers_too_large")
    problem(api.get("/healthz", headers={"X": "a" * 16_384}), 431, "headers_too_large")


def test_a_good_request_id_is_kept_and_a_bad_one_replaced(api):
    assert api.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = api.get("/healthz", headers={"X-Request-ID": "a b"}).headers["x-request-id"]
    assert made != "a b"


def test_each_request_is_one_line_of_json_in_the_log(api, service):
    api.get("/v1/models/mdl_in_the_log%0a%1b[31m", headers={"X-Request-ID": "find-me"})

    def told():
        return [line for line in service.log.read_text().splitlines() if "find-me" in line]

    until(lambda: len(told()) > 0)
    lines = told()
    assert len(lines) == 1
    assert "\x1b" not in lines[0]


def test_head_is_get_without_the_body(api):
    head, get = (
        api.head("/v1/models"),
        api.get("/v1/models", headers={"Accept-Encoding": "identity"}),
    )
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
