"""Hostile and broken requests to the live service: a problem document, never a 500."""

import json

import pytest

from tests.api.problem import problem
from tests.service import SPEC

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"architecture": {"gradgauge": NaN}}',
        b'{"options": {"lr": Infinity}}',
        b'{"options": {"lr": 1e999}}',
        b'{"model_id": "a", "model_id": "b"}',
        b'{"model_id": "\\ud800"}',
        b'{"model_id": "a"',
        b"\xff\xfe",
        b'{"architecture": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"options": {"seed": ' + b"9" * 5000 + b"}}",
    ],
)
def test_json_that_is_none_is_422(api, body):
    problem(api.post("/v1/analyses", content=body, headers=JSON), 422, "invalid_json")


def test_ten_thousand_unknown_fields_get_a_short_answer(api):
    body = {f"field_{i}" * 5: i for i in range(10_000)}
    answer = api.post("/v1/analyses", json=body)
    problem(answer, 422, "invalid_request")
    assert len(answer.content) < 2000
    assert "field_9999" not in answer.text


def test_twenty_faults_at_most_are_told(api):
    inputs = {f"x{i}": {"shape": [1], "scale": "no"} for i in range(100)}
    answer = api.post("/v1/analyses", json={"architecture": SPEC, "options": {"inputs": inputs}})
    assert answer.status_code == 422
    assert len(answer.content) < 4000


def test_a_body_over_the_limit_is_413(api):
    body = json.dumps({"model_id": "a" * (1 << 20)}).encode()
    problem(api.post("/v1/analyses", content=body, headers=JSON), 413, "body_too_large")
    pieces = (body[at : at + 10_000] for at in range(0, len(body), 10_000))
    problem(api.post("/v1/analyses", content=pieces, headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_json_has_to_be_called_json(api, kind):
    headers = {"Content-Type": kind} if kind else {}
    answer = api.post("/v1/analyses", content=b'{"model_id": "a"}', headers=headers)
    problem(answer, 415, "unsupported_media_type")


def test_no_body_is_422(api):
    problem(api.post("/v1/analyses"), 422, "invalid_request")


def test_unknown_addresses_and_methods_are_problems_too(api):
    problem(api.get("/v1/nothing"), 404, "not_found")
    answer = api.put("/v1/models")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    problem(api.get("/static/nothing.js"), 404, "not_found")
    problem(api.get("/static/../app.py"), 404, "not_found")
    problem(api.get("/static/%2e%2e/app.py"), 404, "not_found")


@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "X" * 100])
def test_odd_methods_are_405(api, method):
    problem(api.request(method, "/v1/models"), 405, "method_not_allowed")


@pytest.mark.parametrize("last", ["-1", "x", "9" * 30])
def test_a_last_event_id_that_is_none_is_422(api, service, last):
    done = service.until(service.submit(seed=51))
    headers = {"Last-Event-ID": last}
    problem(api.get(f"/v1/analyses/{done['id']}/events", headers=headers), 422, "invalid_request")


@pytest.mark.parametrize(
    "path",
    ["/v1/models/%00", "/v1/models/%ff%fe", "/v1/models/" + "a" * 3000, "/v1/models/..%2f..%2fx"],
)
def test_ids_that_are_none_are_refused_in_order(api, path):
    assert api.get(path).status_code in {404, 422}
