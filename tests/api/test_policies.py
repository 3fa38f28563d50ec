"""Policies: stored by name, versioned, refused where they say nothing sensible."""

import pytest

from tests.api.problem import problem

ALLOWED = {"fingerprint": "b1c0e8f27a4411aa", "reason": "known", "expires": "2027-01-31"}


def test_a_policy_is_stored_read_changed_and_deleted(api):
    body = {"fail_on": "critical", "min_coverage": 0.5, "allow": [ALLOWED]}
    first = api.put("/v1/policies/a", json=body)
    assert first.status_code == 201, first.text
    told = first.json()
    assert {name: told[name] for name in body} == body
    assert (told["name"], told["version"]) == ("a", 1)
    same = api.put("/v1/policies/a", json=body)
    assert (same.status_code, same.json()["version"]) == (200, 1)
    assert api.put("/v1/policies/a", json={}).json()["version"] == 2
    held = api.get("/v1/policies/a").json()
    assert (held["fail_on"], held["allow"], held["version"]) == ("high", [], 2)
    assert api.delete("/v1/policies/a").status_code == 204
    problem(api.get("/v1/policies/a"), 404, "policy_not_found")
    problem(api.delete("/v1/policies/a"), 404, "policy_not_found")


def test_pages_of_policies_join_without_gaps(api):
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        api.put(f"/v1/policies/{name}", json={})
    found, params = [], {"limit": 2}
    while True:
        told = api.get("/v1/policies", params=params).json()
        found += [each["name"] for each in told["items"]]
        if told["next_cursor"] is None:
            break
        params["cursor"] = told["next_cursor"]
    assert found == sorted(set(found))
    assert set(names) <= set(found)


@pytest.mark.parametrize(
    "body",
    [
        {"fail_on": "most"},
        {"min_coverage": 2},
        {"min_coverage": "0.5"},
        {"allow": [{"fingerprint": "x"}]},
        {"allow": [{"fingerprint": "x", "reason": " "}]},
        {"allow": [{"fingerprint": "x", "reason": "y", "expires": "soon"}]},
        {"allow": [ALLOWED, ALLOWED]},
        {"name": "x"},
        [],
    ],
)
def test_a_policy_that_is_none_is_refused(api, body):
    problem(api.put("/v1/policies/b", json=body), 422, "invalid_request")
    problem(api.get("/v1/policies/b"), 404, "policy_not_found")


@pytest.mark.parametrize("name", ["A", "-x", "x" * 65, "%00", "a%2fb"])
def test_a_name_that_is_none_is_refused(api, name):
    assert api.put(f"/v1/policies/{name}", json={}).status_code in {404, 405, 422}


def test_the_capabilities_name_ops_limits_and_versions(api, service):
    told = api.get("/v1/capabilities").json()
    gemm = next(op for op in told["ops"] if (op["domain"], op["op"]) == ("", "Gemm"))
    assert gemm["since"]
    assert told["limits"]["max_upload_bytes"] == service.settings["max_upload_bytes"]
    formats = ["json", "markdown", "html", "sarif", "junit", "gitlab", "github", "model-explorer"]
    assert told["report_formats"] == formats
