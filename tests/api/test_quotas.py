"""Quotas and rates over HTTP: refused with the limit and the present use; deletion makes room."""

import pytest

from gradgauge.store.repository import keys, usage
from tests.api.keyed import bearer, key, on
from tests.api.problem import problem
from tests.service import SPEC

QUEUED = {"architecture": SPEC, "fresh": True}


@pytest.fixture
def tenant(keyed, request):
    """Headers of a project of its own, with the quotas of the test's parameter."""
    name = request.node.name[:60]
    headers = bearer(key(keyed, name)[1])

    async def limit(session):
        of = await keys.project_named(session, name)
        await usage.set_quotas(session, of, request.param)

    on(keyed, limit)
    return headers


@pytest.mark.parametrize("tenant", [{"bytes": 10}], indirect=True)
def test_bytes_are_refused_as_soon_as_they_are_known_and_deletion_makes_room(keyed, tenant):
    def send(content):
        return keyed.client.post("/v1/models", content=content, headers=tenant)

    first = send(b"12345678").json()["id"]
    told = problem(send(b"123"), 409, "storage_quota_exceeded")
    assert told.limit == "quota_bytes=10"
    assert "holds 8 of 10 bytes, and there is room for 2 more, not for 3" in told.detail
    pieces = (b"1" for _ in range(9))
    problem(send(pieces), 409, "storage_quota_exceeded")
    assert keyed.client.delete(f"/v1/models/{first}", headers=tenant).status_code == 204
    assert send(b"0123456789").status_code == 201
    problem(send(b"1"), 409, "storage_quota_exceeded")
    spool = keyed.folder / "data" / "spool"
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("tenant", [{"models": 1}], indirect=True)
def test_models_and_specs_are_counted_together(keyed, tenant):
    client = keyed.client
    made = client.post("/v1/architectures", json=SPEC, headers=tenant)
    assert made.status_code == 201
    again = client.post("/v1/architectures", json=SPEC, headers=tenant)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    other = SPEC | {"name": "other"}
    told = problem(
        client.post("/v1/architectures", json=other, headers=tenant), 409, "model_quota_exceeded"
    )
    assert told.limit == "quota_models=1"
    problem(client.post("/v1/models", content=b"abc", headers=tenant), 409, "model_quota_exceeded")
    asked = {"architecture": other}
    problem(client.post("/v1/analyses", json=asked, headers=tenant), 409, "model_quota_exceeded")
    path = f"/v1/architectures/{made.json()['id']}"
    assert client.delete(path, headers=tenant).status_code == 204
    assert client.post("/v1/architectures", json=other, headers=tenant).status_code == 201


@pytest.mark.parametrize("tenant", [{"queued": 2}], indirect=True)
def test_a_full_queue_asks_to_come_again_and_a_cancelled_analysis_can_be_deleted(keyed, tenant):
    def submit():
        return keyed.client.post("/v1/analyses", json=QUEUED, headers=tenant)

    first, second = submit().json(), submit().json()
    refused = submit()
    told = problem(refused, 429, "queue_quota_exceeded")
    assert "2 analyses of this project wait" in told.detail
    assert int(refused.headers["retry-after"]) > 0
    path = f"/v1/analyses/{first['id']}"
    problem(keyed.client.delete(path, headers=tenant), 409, "analysis_in_progress")
    spec = f"/v1/architectures/{second['architecture_id']}"
    problem(keyed.client.delete(spec, headers=tenant), 409, "architecture_in_use")
    assert keyed.client.post(f"{path}:cancel", headers=tenant).status_code == 200
    assert keyed.client.delete(path, headers=tenant).status_code == 204
    problem(keyed.client.get(path, headers=tenant), 404, "analysis_not_found")
    assert submit().status_code == 202


@pytest.mark.parametrize("tenant", [{"running": 1}], indirect=True)
def test_answers_tell_a_keys_rate(keyed, tenant):
    answer = keyed.client.get("/v1/models", headers=tenant)
    assert answer.headers["ratelimit-policy"] == '"key";q=1200;w=60'
    assert answer.headers["ratelimit"].startswith('"key";r=1199;t=')
