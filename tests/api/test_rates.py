"""A key that asks too often, through the gate itself."""

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from gradgauge.api import rates
from gradgauge.api.gate import Gate
from gradgauge.api.guard import Guard
from gradgauge.api.rates import Rates
from gradgauge.settings import Settings
from tests.api.problem import problem


def ask(times, path="/v1/models"):
    """The answers of an application that lets a key ask twice a minute."""

    async def answer(_request):
        return PlainTextResponse("here")

    inner = Starlette(routes=[Route("/v1/models", answer), Route("/healthz", answer)])
    app = Guard(Gate(inner, require_keys=False, rates=Rates(2)))

    async def run():
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.get(path) for _ in range(times)]

    return anyio.run(run)


def test_one_request_too_many_is_429_and_says_when_to_come_again():
    *fine, refused = ask(3)
    assert [answer.status_code for answer in fine] == [200, 200]
    assert [answer.headers["ratelimit"][:9] for answer in fine] == ['"key";r=1', '"key";r=0']
    told = problem(refused, 429, "rate_limited")
    assert told.limit == "rate_limit=2"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit-policy"] == '"key";q=2;w=60'


def test_health_is_not_counted():
    assert {answer.status_code for answer in ask(4, "/healthz")} == {200}


def test_keys_are_counted_each_by_itself():
    counted = Rates(1)
    assert [counted.count(key)[0] for key in ("a", "a", "b", "a")] == [True, False, True, False]


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        (Settings(), None),
        (Settings(rate_limit=5), 5),
        (Settings(require_keys=True), 1200),
        (Settings(require_keys=True, rate_limit=0), None),
    ],
)
def test_rates_are_counted_where_keys_are_asked_for_or_somebody_says_so(settings, limit):
    found = rates.of(settings)
    assert (found.limit if found else None) == limit
