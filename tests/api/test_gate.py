"""Keys: what is open without one, what each scope may, and what one project sees of another."""

import re
from datetime import timedelta

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount, Route

from gradgauge.api.app import create_app
from gradgauge.api.gate import OPEN, KeyRing
from gradgauge.settings import Settings
from gradgauge.store.repository import keys
from tests.api.keyed import bearer, key, on
from tests.api.problem import problem
from tests.service import SPEC, until

QUEUED = {"architecture": SPEC, "fresh": True}


@pytest.fixture(scope="module")
def mine(keyed):
    return bearer(key(keyed, "mine")[1])


@pytest.fixture(scope="module")
def theirs(keyed):
    return bearer(key(keyed, "theirs")[1])


def addresses():
    """Every method and address of the application, with something in the place of each name."""
    for each in iter_route_contexts(create_app(Settings()).routes):
        route = each.original_route
        if isinstance(route, Mount):
            continue
        assert isinstance(route, Route), route
        for method in sorted(route.methods or ()):
            yield method, re.sub(r"{[^}]+}", "x", route.path)


CLOSED = sorted({(method, path) for method, path in addresses() if path not in OPEN})


def test_the_walk_has_found_the_routes():
    paths = {path for _, path in CLOSED}
    assert {"/", "/v1/models", "/v1/analyses", "/v1/analyses/x/report", "/v1/audit"} <= paths
    assert len(CLOSED) > 15
    assert {"/healthz", "/readyz", "/openapi.json", "/docs", "/sign-in", "/sign-out"} == OPEN


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_no_route_answers_without_a_key(keyed, method, path):
    answer = keyed.client.request(method, path)
    assert answer.status_code == 401, (method, path, answer.text)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/metrics/x", "//v1/models", "/V1/MODELS"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "BREW"])
def test_an_address_that_does_not_exist_is_no_different(keyed, method, path):
    problem(keyed.client.request(method, path), 401, "key_required")


@pytest.mark.parametrize("path", sorted(OPEN - {"/readyz", "/sign-out"}))
def test_what_is_open_answers(keyed, path):
    assert keyed.client.get(path).status_code == 200


def test_a_key_of_another_service_a_cut_one_and_a_changed_one_open_nothing(keyed):
    _, text = key(keyed, "cut")
    assert keyed.client.get("/v1/models", headers=bearer(text)).status_code == 200
    last = "0" if text[-1] != "0" else "1"
    for wrong in (text[:-1], text[:-1] + last, text.upper(), text + text, "x"):
        problem(keyed.client.get("/v1/models", headers=bearer(wrong)), 401, "key_required")


def test_a_good_id_with_another_secret_opens_nothing(keyed):
    import zlib

    key_id, text = key(keyed, "forged")
    body = f"gg_{key_id}_{'0' * 52}"
    forged = f"{body}{zlib.crc32(body.encode()):08x}"
    problem(keyed.client.get("/v1/models", headers=bearer(forged)), 401, "key_required")
    assert keyed.client.get("/v1/models", headers=bearer(text)).status_code == 200
    problem(keyed.client.get("/v1/models", headers=bearer(forged)), 401, "key_required")


def test_an_expired_key_opens_nothing(keyed):
    _, text = key(keyed, "late", days=-1)
    problem(keyed.client.get("/v1/models", headers=bearer(text)), 401, "key_required")


def test_a_revoked_key_opens_nothing_soon(keyed):
    key_id, text = key(keyed, "leaver")
    assert keyed.client.get("/v1/models", headers=bearer(text)).status_code == 200

    async def revoke(session):
        await keys.revoke(session, await keys.project_named(session, "leaver"), key_id)

    on(keyed, revoke)
    until(lambda: keyed.client.get("/v1/models", headers=bearer(text)).status_code == 401)
    assert KeyRing.FRESH_S < 5


def test_a_rotated_key_lives_on_for_its_overlap(keyed):
    key_id, old = key(keyed, "turning")

    async def rotate(session):
        of = await keys.project_named(session, "turning")
        return await keys.rotate(session, of, key_id, overlap=timedelta(hours=1))

    _, new = on(keyed, rotate)
    for text in (old, new):
        assert keyed.client.get("/v1/models", headers=bearer(text)).status_code == 200


def test_reading_keys_do_not_write_and_writing_keys_do_not_read_the_audit(keyed, mine):
    reader = bearer(key(keyed, "mine", "reader", "read")[1])
    assert keyed.client.get("/v1/analyses", headers=reader).status_code == 200
    told = problem(
        keyed.client.post("/v1/analyses", json=QUEUED, headers=reader), 403, "scope_missing"
    )
    assert "write" in told.detail
    problem(keyed.client.get("/v1/audit", headers=mine), 403, "scope_missing")


def test_a_write_is_in_its_projects_audit_log_and_in_no_others(keyed, mine):
    headers = {**mine, "X-Request-ID": "who-did-this"}
    assert keyed.client.post("/v1/analyses", json=QUEUED, headers=headers).status_code == 202
    boss = bearer(key(keyed, "mine", "boss", "admin")[1])
    other = bearer(key(keyed, "theirs", "boss", "admin")[1])

    def told(who):
        items = keyed.client.get("/v1/audit", headers=who).json()["items"]
        return [item for item in items if item["request_id"] == "who-did-this"]

    (entry,) = until(lambda: told(boss))
    assert (entry["principal"], entry["method"], entry["path"], entry["status"]) == (
        "someone",
        "POST",
        "/v1/analyses",
        202,
    )
    assert told(other) == []


def test_a_foreign_id_answers_as_an_unknown_one(keyed, mine, theirs):
    client = keyed.client
    model = client.post("/v1/models?name=a.onnx", content=b"abc", headers=mine).json()["id"]
    queued = client.post("/v1/analyses", json=QUEUED, headers=mine).json()
    spec = client.post("/v1/architectures", json=SPEC, headers=mine).json()["id"]
    asked = [
        ("GET", "/v1/models/{}", model),
        ("DELETE", "/v1/models/{}", model),
        ("GET", "/v1/architectures/{}", spec),
        ("GET", "/v1/analyses/{}", queued["id"]),
        ("POST", "/v1/analyses/{}:cancel", queued["id"]),
        ("GET", "/v1/analyses/{}/report", queued["id"]),
        ("GET", "/v1/analyses/{}/events", queued["id"]),
        ("GET", "/analyses/{}", queued["id"]),
    ]
    for method, path, held in asked:
        unknown = held[:-4] + "zzzz"
        foreign = client.request(method, path.format(held), headers=theirs)
        nothing = client.request(method, path.format(unknown), headers=theirs)
        assert foreign.status_code == nothing.status_code == 404, (path, foreign.text)
        assert _blank(foreign, held) == _blank(nothing, unknown)
    for source in ({"model_id": model}, {"architecture_id": spec}):
        problem_code = client.post("/v1/analyses", json=source, headers=theirs)
        assert problem_code.status_code == 404
    assert client.get(f"/v1/analyses/{queued['id']}", headers=mine).json()["state"] == "queued"


def _blank(answer, held):
    """All of a refusal but the id asked for and the request's own."""
    told = answer.text.replace(held, "ID")
    return told.replace(answer.headers["x-request-id"], "REQUEST")


def test_lists_and_content_tell_nothing_of_other_projects(keyed, theirs):
    client = keyed.client
    alone = bearer(key(keyed, "alone")[1])
    first = client.post("/v1/models?name=a.onnx", content=b"same", headers=theirs)
    second = client.post("/v1/models?name=a.onnx", content=b"same", headers=alone)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]
    listed = client.get("/v1/models", headers=alone).json()["items"]
    assert [row["id"] for row in listed] == [second.json()["id"]]
    digest = first.json()["sha256"]
    empty = bearer(key(keyed, "empty")[1])
    assert client.get(f"/v1/models/sha256:{digest}", headers=empty).status_code == 404


def test_an_idempotency_key_is_a_projects_own(keyed, mine, theirs):
    once = {"Idempotency-Key": "the-same"}
    answers = [
        keyed.client.post("/v1/analyses", json=QUEUED, headers=once | who).json()["id"]
        for who in (mine, mine, theirs)
    ]
    assert answers[0] == answers[1] != answers[2]


@pytest.fixture
def browser(keyed):
    with httpx2.Client(base_url=keyed.url, headers={"Accept": "text/html"}) as client:
        yield client


def test_a_browser_signs_in_and_out(keyed, browser):
    _, text = key(keyed, "page")
    asked = browser.get("/")
    assert asked.status_code == 401
    assert 'name="key"' in asked.text
    answer = browser.post("/sign-in", data={"key": text})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "Analyses" in browser.get("/").text
    browser.post("/sign-out")
    assert browser.get("/").status_code == 401


def test_a_cookie_alone_writes_nothing(keyed, browser):
    _, text = key(keyed, "forms")
    browser.post("/sign-in", data={"key": text})
    url = "/analyses/ana_x:cancel"
    problem(browser.post(url), 403, "forbidden_origin")
    problem(browser.post(url, headers={"Origin": "http://evil.example"}), 403, "forbidden_origin")
    problem(browser.post(url, headers={"Origin": keyed.url}), 404, "analysis_not_found")


def test_what_is_no_key_is_not_kept(browser):
    answer = browser.post("/sign-in", data={"key": "hunter2"})
    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers
    assert "hunter2" not in answer.text
