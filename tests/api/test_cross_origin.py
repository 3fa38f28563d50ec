"""Pages of other origins: those that the service names may use the API with a key of their own."""

import httpx2
import pytest
from pydantic import ValidationError

from gradgauge.api.sign_in import COOKIE
from gradgauge.settings import Settings
from tests.api.keyed import BOARD, bearer, key
from tests.api.problem import problem

PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
}
READ = "access-control-allow-origin"


@pytest.fixture
def asked(keyed):
    with httpx2.Client(base_url=keyed.url, headers={"Origin": BOARD}) as client:
        yield client


def test_a_browser_may_ask_first_without_a_key(asked):
    answer = asked.options("/v1/analyses", headers=PREFLIGHT)
    assert answer.status_code == 200
    assert answer.headers[READ] == BOARD
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "idempotency-key"))
    assert "access-control-allow-credentials" not in answer.headers


def test_it_reads_what_a_key_opens_and_what_is_refused(asked, keyed):
    _, text = key(keyed, "board", scope="read")
    answer = asked.get("/v1/analyses", headers=bearer(text))
    assert (answer.status_code, answer.headers[READ]) == (200, BOARD)
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    assert "Origin" in answer.headers["vary"]
    refused = asked.get("/v1/analyses")
    problem(refused, 401, "key_required")
    assert refused.headers[READ] == BOARD


@pytest.mark.parametrize(
    ("origin", "path"),
    [
        ("https://board.example", "/v1/analyses"),
        ("http://board.example:8443", "/v1/analyses"),
        ("https://board.example:8443.evil.example", "/v1/analyses"),
        ("null", "/v1/analyses"),
        (BOARD, "/sign-in"),
        (BOARD, "/"),
    ],
)
def test_no_other_page_and_no_page_of_ours(asked, origin, path):
    for method in ("OPTIONS", "GET", "POST"):
        answer = asked.request(method, path, headers={"Origin": origin, **PREFLIGHT})
        problem(answer, 403, "forbidden_origin")
        assert READ not in answer.headers


def test_a_signed_in_browser_writes_nothing_for_it(asked, keyed):
    _, text = key(keyed, "board")
    asked.cookies.set(COOKIE, text)
    problem(asked.post("/v1/analyses/ana_x:cancel"), 403, "forbidden_origin")


@pytest.mark.parametrize(
    "origins", ["*", "https://a.example/", "a.example", "https://a.example/b", "null", "ftp://a"]
)
def test_what_is_no_origin_is_refused_at_the_start(origins):
    with pytest.raises(ValidationError, match="which is no origin"):
        Settings(cors_origins=f"https://b.example {origins}")
