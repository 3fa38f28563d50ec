"""Analyses over HTTP, with the real queue, the real engine and its confined child."""

import concurrent.futures
import json

import pytest

from tests.api.problem import problem
from tests.api.test_models import network
from tests.service import QUICK, SLOW, SPEC


def test_from_upload_to_report(api, service):
    model = service.model(network(), name="whole way.onnx")
    asked = {"model_id": model["id"], "options": QUICK}
    answer = api.post("/v1/analyses", json=asked)
    assert answer.status_code == 202
    analysis = answer.json()
    assert answer.headers["location"] == f"/v1/analyses/{analysis['id']}"
    assert answer.headers["retry-after"] == "1"
    done = service.until(analysis["id"])
    assert (done["state"], done["progress"], done["cached"]) == ("succeeded", 1.0, False)
    assert (done["model_id"], done["options"]) == (model["id"], QUICK)
    report = api.get(f"/v1/analyses/{analysis['id']}/report").json()
    assert report["summary"]["verdict"] == done["verdict"]
    assert report["model"]["name"] == "whole way"
    assert report["provenance"]["model_sha256"] == model["sha256"]


def test_an_analysis_may_be_asked_for_before_the_inspection_has_ended(api, service):
    model = api.post("/v1/models", content=network()).json()
    answer = api.post("/v1/analyses", json={"model_id": model["id"], "options": QUICK})
    assert service.until(answer.json()["id"])["state"] == "succeeded"


def test_the_same_again_is_answered_from_the_result_unless_it_has_to_be_fresh(api, service):
    asked = {"architecture": SPEC | {"name": "cached"}, "options": QUICK | {"seed": 11}}
    first = service.until(api.post("/v1/analyses", json=asked).json()["id"])
    again = api.post("/v1/analyses", json=asked)
    assert (again.status_code, again.json()["cached"]) == (200, True)
    assert again.json()["id"] != first["id"]
    old = api.get(f"/v1/analyses/{first['id']}/report")
    assert api.get(f"/v1/analyses/{again.json()['id']}/report").content == old.content
    assert api.post("/v1/analyses", json=asked | {"fresh": True}).status_code == 202
    other = asked | {"options": QUICK | {"seed": 12}}
    assert api.post("/v1/analyses", json=other).status_code == 202


def test_a_stored_and_an_inline_architecture_are_one(api, service):
    spec = SPEC | {"name": "stored"}
    held = api.post("/v1/architectures", json=spec)
    assert held.status_code == 201
    by_id = api.post(
        "/v1/analyses", json={"architecture_id": held.json()["id"], "options": QUICK}
    ).json()
    inline = api.post("/v1/analyses", json={"architecture": spec, "options": QUICK}).json()
    assert by_id["architecture_id"] == inline["architecture_id"] == held.json()["id"]
    assert service.until(by_id["id"])["state"] == "succeeded"


def test_an_idempotency_key_makes_one_analysis_of_many_requests(api):
    asked = {"architecture": SPEC, "options": QUICK, "fresh": True}
    headers = {"Idempotency-Key": "key-1"}

    def post(_):
        return api.post("/v1/analyses", json=asked, headers=headers)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    made = [answer for answer in answers if answer.status_code != 409]
    assert len({answer.json()["id"] for answer in made}) == 1
    for answer in answers:
        if answer.status_code == 409:
            problem(answer, 409, "idempotency_in_flight")
            assert answer.headers["retry-after"] == "1"
    other = api.post("/v1/analyses", json=asked | {"fresh": False}, headers=headers)
    problem(other, 422, "idempotency_key_reused")
    elsewhere = api.post("/v1/analyses", json={"model_id": "mdl_none"}, headers=headers)
    problem(elsewhere, 422, "idempotency_key_reused")
    bad = api.post("/v1/analyses", json=asked, headers={"Idempotency-Key": "x" * 256})
    problem(bad, 422, "invalid_request")


def test_events_tell_every_state_and_resume_where_they_broke_off(api, service):
    analysis_id = service.submit(seed=21, profile="standard")
    told = events(api, analysis_id)
    states = [event["state"] for event in told]
    assert states[0] == "queued"
    assert states[-1] == "succeeded"
    assert {"analytic", "sampled"} <= {event["stage"] for event in told}
    assert [event["id"] for event in told] == sorted(event["id"] for event in told)
    progress = [event["progress"] for event in told]
    assert progress == sorted(progress)
    middle = told[2]["id"]
    assert events(api, analysis_id, middle) == [event for event in told if event["id"] > middle]


def events(api, analysis_id, after=None):
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    with api.stream("GET", f"/v1/analyses/{analysis_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]


def test_events_come_as_they_happen(api, service):
    analysis_id = service.submit(SLOW)
    try:
        with api.stream("GET", f"/v1/analyses/{analysis_id}/events") as answer:
            lines = answer.iter_lines()
            for line in lines:
                if '"state":"running"' in line:
                    break
            api.post(f"/v1/analyses/{analysis_id}:cancel")
            assert any('"state":"cancelled"' in line for line in lines)
    finally:
        api.post(f"/v1/analyses/{analysis_id}:cancel")


def test_a_time_limit_is_kept_and_named(service):
    body = SLOW | {"options": {"profile": "deep", "samples": 1_000_000, "time_limit_s": 1}}
    failed = service.until(service.submit(body))
    # The engine gives up between two nodes, the watchdog within one.
    ends = {"time_limit": "time_limit_s=1", "limit_exceeded": "seconds=0.95"}
    assert failed["state"] == "failed"
    assert failed["error"]["limit"] == ends[failed["error"]["code"]]


def test_analyses_are_listed_page_by_page_and_by_what_was_analysed(api, service):
    held = api.post("/v1/architectures", json=SPEC | {"name": "listed"}).json()
    body = {"architecture_id": held["id"], "options": QUICK, "fresh": True}
    ids = [api.post("/v1/analyses", json=body).json()["id"] for _ in range(3)]
    for analysis_id in ids:
        service.until(analysis_id)
    query = {"architecture_id": held["id"], "state": "succeeded", "limit": 2}
    first = api.get("/v1/analyses", params=query).json()
    assert [item["id"] for item in first["items"]] == ids[:0:-1]
    rest = api.get("/v1/analyses", params=query | {"cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in rest["items"]] == ids[:1]
    assert rest["next_cursor"] is None
    problem(api.get("/v1/analyses", params={"state": "done"}), 422, "invalid_request")


def test_a_model_that_is_being_analysed_cannot_be_deleted(api, service):
    model = service.model(network())
    blocker = service.submit(SLOW)
    waiting = api.post("/v1/analyses", json={"model_id": model["id"], "options": QUICK}).json()
    problem(api.delete(f"/v1/models/{model['id']}"), 409, "model_in_use")
    api.post(f"/v1/analyses/{blocker}:cancel")
    assert service.until(waiting["id"])["state"] == "succeeded"
    assert api.delete(f"/v1/models/{model['id']}").status_code == 204
    assert api.get(f"/v1/analyses/{waiting['id']}").json()["model_id"] is None
    assert api.get(f"/v1/analyses/{waiting['id']}/report").status_code == 200


def test_cancelling_what_has_ended_changes_nothing(api, service):
    done = service.until(service.submit(seed=31))
    answer = api.post(f"/v1/analyses/{done['id']}:cancel")
    assert (answer.status_code, answer.json()) == (200, done)


@pytest.mark.parametrize("path", ["", "/events", "/report"])
def test_an_unknown_analysis_is_404_everywhere(api, path):
    problem(api.get(f"/v1/analyses/ana_none{path}"), 404, "analysis_not_found")
    problem(api.post("/v1/analyses/ana_none:cancel"), 404, "analysis_not_found")


@pytest.mark.parametrize(
    ("body", "node"),
    [
        ({}, None),
        ({"model_id": "a", "architecture_id": "b"}, None),
        ({"model_id": 3}, "model_id"),
        ({"model_id": "a", "fresh": "yes"}, "fresh"),
        ({"model_id": "a", "fresh": 1}, "fresh"),
        ({"model_id": "a", "modle": 1}, None),
        ([], None),
    ],
)
def test_a_wrong_request_is_422_and_says_where(api, body, node):
    told = problem(api.post("/v1/analyses", json=body), 422, "invalid_request")
    assert told.node == node


@pytest.mark.parametrize(
    ("options", "code", "node"),
    [
        ({"seed": -1}, "bad_value", "seed"),
        ({"sede": 1}, "unknown_field", "sede"),
        ({"samples": True}, "bad_value", "samples"),
        ({"lr": 0.1}, "bad_value", "lr"),
        ({"data": "/etc/passwd"}, "data_not_accepted", "data"),
    ],
)
def test_a_wrong_option_is_422_and_says_where(api, options, code, node):
    answer = api.post("/v1/analyses", json={"architecture": SPEC, "options": options})
    assert problem(answer, 422, code).node == node


def test_a_wrong_inline_architecture_is_422_and_says_where(api):
    spec = SPEC | {"layers": [{"type": "dense", "units": 0}]}
    answer = api.post("/v1/analyses", json={"architecture": spec})
    assert problem(answer, 422, "bad_value").node == "layers[0].units"
