"""`/metrics`: what a scraper finds, in which labels, and who may look."""

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from tests.api.keyed import bearer, key
from tests.api.problem import problem
from tests.api.test_models import network
from tests.service import QUICK, SPEC, until


def scraped(client, **headers):
    """Samples by name, each as its labels and value."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(found, name, **labels):
    return sum(number for told, number in found.get(name, ()) if labels.items() <= told.items())


def test_work_of_api_worker_and_child_is_counted_in_one_place(api, service):
    before = scraped(api)
    content = network()
    model = service.model(content)
    done = service.until(service.submit({"model_id": model["id"], "options": {"profile": "quick"}}))
    assert done["state"] == "succeeded"
    refused = service.model(network()[:-20], name="<cut>.onnx")
    assert refused["state"] == "rejected"
    after = scraped(api)

    def grown(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)

    assert grown("gradgauge_upload_bytes_total") >= len(content)
    assert grown("gradgauge_jobs_total", task="analyse", outcome="succeeded") == 1
    assert grown("gradgauge_jobs_total", task="inspect", outcome="succeeded") == 1
    assert grown("gradgauge_jobs_total", task="inspect", code="model_truncated") == 1
    assert grown("gradgauge_job_wait_seconds_count", task="analyse") == 1
    assert grown("gradgauge_job_run_seconds_sum", task="analyse") > 0
    assert grown("gradgauge_stage_seconds_count", stage="sampled") == 1
    assert grown("gradgauge_child_peak_bytes_count", task="analyse") == 1
    route = {"method": "POST", "route": "/v1/analyses", "status": "202"}
    assert grown("gradgauge_http_request_seconds_count", **route) == 1


def test_the_queues_depth_is_told_as_it_stands(api):
    found = scraped(api)
    labels = [told for told, _ in found["gradgauge_queue_jobs"]]
    assert {(told["task"], told["state"]) for told in labels} == {
        (task, state) for task in ("inspect", "analyse") for state in ("todo", "doing")
    }
    assert value(found, "gradgauge_queue_workers") == 2
    assert value(found, "gradgauge_database_up") == 1


def test_no_name_from_outside_is_a_label(api, service):
    secret = "hunter2-canary"
    service.model(network(), name=f"{secret}.onnx")
    api.get(f"/v1/models/{secret}")
    api.get(f"/{secret}")
    api.request(secret.upper().replace("-", ""), "/v1/models")
    text = api.get("/metrics").text
    assert secret not in text.lower()
    assert "HUNTER2CANARY" not in text
    names = set(re.findall(r'(\w+)="', text))
    assert names <= {
        *("method", "route", "status", "le"),
        *("task", "outcome", "code", "state", "stage"),
    }


def test_with_keys_only_the_operators_admins_look(keyed):
    other = bearer(key(keyed, "tenant", "boss", "admin")[1])
    problem(keyed.client.get("/metrics", headers=other), 403, "scope_missing")
    reader = bearer(key(keyed, "default", "reader", "write")[1])
    problem(keyed.client.get("/metrics", headers=reader), 403, "scope_missing")
    mine = bearer(key(keyed, "default", "prometheus", "admin")[1])
    assert "gradgauge_queue_jobs" in scraped(keyed.client, **mine)


def test_the_log_tells_an_analysis_from_its_request_to_its_child_under_both_ids(api, service):
    body = {"architecture": SPEC, "options": QUICK | {"seed": 4711}, "fresh": True}
    told = {"X-Request-ID": "from-end-to-end"}
    analysis = api.post("/v1/analyses", json=body, headers=told).json()["id"]
    assert service.until(analysis)["state"] == "succeeded"

    def lines():
        found = [json.loads(row) for row in service.log.read_text().splitlines() if row[:1] == "{"]
        mine = [row for row in found if row.get("analysis") == analysis]
        return mine if mine[-1:] and mine[-1]["event"] == "analysis_ended" else None

    found = until(lines)
    events = ["analysis_asked_for", "analysis_started", "child_ended", "analysis_ended"]
    assert [row["event"] for row in found] == events
    assert {row["request_id"] for row in found} == {"from-end-to-end"}
    assert found[2]["pid"] > 1
    assert "peak_bytes" in found[2]  # how large: tests/worker/test_confined.py
