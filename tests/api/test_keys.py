"""API keys over HTTP: made, told once, listed, rotated, revoked, for admins of one project."""

import pytest

from gradgauge.store import keys
from tests.api.keyed import bearer, key
from tests.api.problem import problem
from tests.service import until

PATH = "/v1/keys"


@pytest.fixture(scope="module")
def admin(keyed):
    return bearer(key(keyed, "keyring", "chief", "admin")[1])


def test_a_key_is_made_told_once_and_opens_its_project(keyed, admin):
    client = keyed.client
    answer = client.post(PATH, json={"principal": "ci", "scope": "read", "days": 1}, headers=admin)
    told = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert keys.id_of(told["key"]) == told["id"]
    assert told["expires_at"] > told["created_at"]
    mine = bearer(told["key"])
    assert client.get("/v1/models", headers=mine).status_code == 200
    problem(client.post("/v1/uploads", json={}, headers=mine), 403, "scope_missing")
    listed = client.get(PATH, headers=admin)
    assert told["id"] in {each["id"] for each in listed.json()["items"]}
    assert told["key"] not in listed.text
    assert "sha256" not in listed.text


def test_a_rotated_key_lives_on_for_the_overlap_and_a_revoked_one_ends(keyed, admin):
    client = keyed.client
    old = client.post(PATH, json={"principal": "rotated"}, headers=admin).json()
    new = client.post(f"{PATH}/{old['id']}:rotate", json={"overlap_hours": 1}, headers=admin).json()
    assert new["scope"] == old["scope"]
    for each in (old, new):
        assert client.get("/v1/models", headers=bearer(each["key"])).status_code == 200
    problem(client.post(PATH, json={"principal": "rotated"}, headers=admin), 409, "too_many_keys")
    assert client.post(f"{PATH}/{new['id']}:revoke", headers=admin).json()["revoked_at"]
    until(lambda: client.get("/v1/models", headers=bearer(new["key"])).status_code == 401)
    again = client.post(f"{PATH}/{new['id']}:rotate", json={}, headers=admin)
    problem(again, 409, "key_not_live")


def test_keys_are_for_admins_and_of_their_own_project_alone(keyed, admin):
    client = keyed.client
    other_id, other = key(keyed, "elsewhere", "boss", "admin")
    _, writer = key(keyed, "keyring", "writer", "write")
    problem(client.get(PATH, headers=bearer(writer)), 403, "scope_missing")
    problem(
        client.post(PATH, json={"principal": "x"}, headers=bearer(writer)), 403, "scope_missing"
    )
    for act in ("rotate", "revoke"):
        answer = client.post(f"{PATH}/{other_id}:{act}", json={}, headers=admin)
        problem(answer, 404, "key_not_found")
    assert other_id not in client.get(PATH, headers=admin).text
    assert client.get(PATH, headers=bearer(other)).status_code == 200


def test_pages_hold_each_key_once(keyed, admin):
    whole = keyed.client.get(PATH, headers=admin).json()["items"]
    found, cursor = [], None
    while True:
        params = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = keyed.client.get(PATH, params=params, headers=admin).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [each["id"] for each in found] == sorted(each["id"] for each in whole)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"principal": ""},
        {"principal": "a\nb"},
        {"principal": "x", "scope": "root"},
        {"principal": "x", "days": 0},
    ],
)
def test_a_wrong_request_makes_no_key(keyed, admin, body):
    problem(keyed.client.post(PATH, json=body, headers=admin), 422, "invalid_request")
