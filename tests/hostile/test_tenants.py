"""Two projects and their keys: what is not shown a live key of its own gets nothing."""

import base64

import pytest

from tests.api.keyed import bearer, key, keyed
from tests.api.problem import problem
from tests.service import SPEC

__all__ = ["keyed"]

PATH = "/v1/analyses"


@pytest.fixture(scope="module")
def own(keyed):
    """A key's text, and what its project holds."""
    _, text = key(keyed, "victim")
    client, who = keyed.client, bearer(text)
    upload = client.post("/v1/uploads", json={}, headers=who).json()["id"]
    client.put(f"/v1/uploads/{upload}/parts/1", content=b"abc", headers=who)
    client.put("/v1/policies/theirs", json={}, headers=who)
    held = {
        "model": client.post("/v1/models", content=b"victim's", headers=who).json()["id"],
        "spec": client.post("/v1/architectures", json=SPEC, headers=who).json()["id"],
        "analysis": client.post(
            PATH, json={"architecture": SPEC, "fresh": True}, headers=who
        ).json()["id"],
        "upload": upload,
        "policy": "theirs",
        "data": client.post("/v1/data", content=b"victim's", headers=who).json()["id"],
    }
    return text, held


@pytest.fixture(scope="module")
def attacker(keyed):
    return bearer(key(keyed, "attacker")[1])


NO_KEYS = {
    "nothing": lambda _: {},
    "an empty bearer": lambda _: {"Authorization": "Bearer"},
    "no scheme": lambda text: {"Authorization": text},
    "another scheme": lambda text: {"Authorization": f"Token {text}"},
    "basic": lambda text: {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()},
    "two spaces and more": lambda text: {"Authorization": f"Bearer {text} {text}"},
    "a comma": lambda text: {"Authorization": f"Bearer {text},"},
    "upper case": lambda text: {"Authorization": f"Bearer {text.upper()}"},
    "a cut one": lambda text: {"Authorization": f"Bearer {text[:-1]}"},
    "a longer one": lambda text: {"Authorization": f"Bearer {text}0"},
    "the id alone": lambda text: {"Authorization": f"Bearer {'_'.join(text.split('_')[:2])}"},
    "an id that is SQL": lambda _: {"Authorization": "Bearer gg_' OR '1'='1_" + "0" * 60},
    "a novel": lambda _: {"Authorization": "Bearer gg_" + "a" * 9000},
    "a letter of Turkish": lambda text: {"Authorization": f"Bearer {text}\u0131".encode()},
    "a header of ours": lambda text: {"X-API-Key": text},
    "the project's name": lambda _: {"X-Project": "victim"},
    "a broken cookie": lambda _: {"Cookie": "gradgauge_key=gg_x; a=\x7f; =;;"},
    "a forwarded loopback": lambda _: {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=::1"},
    "another method's name": lambda _: {"X-HTTP-Method-Override": "GET"},
    "an original address": lambda _: {"X-Original-URL": "/healthz", "X-Rewrite-URL": "/healthz"},
}


@pytest.mark.parametrize("name", sorted(NO_KEYS))
def test_what_is_no_key_opens_nothing(keyed, own, name):
    text, held = own
    headers = NO_KEYS[name](text)
    problem(keyed.client.get(f"{PATH}/{held['analysis']}", headers=headers), 401, "key_required")
    answer = keyed.client.post(PATH, json={"architecture": SPEC}, headers=headers)
    problem(answer, 401, "key_required")


@pytest.mark.parametrize("place", ["key", "api_key", "access_token", "token"])
def test_a_key_in_the_address_opens_nothing(keyed, own, place):
    answer = keyed.client.get(PATH, params={place: own[0]})
    problem(answer, 401, "key_required")
    assert own[0] not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/analyses/",
        "//v1/analyses",
        "/healthz/../v1/analyses",
        "/healthz/..%2fv1/analyses",
        "/static/../v1/analyses",
        "/static/%2e%2e/v1/analyses",
        "/v1/analyses;/healthz",
        "/v1/analyses%00/healthz",
        "/%76%31/analyses",
        "/healthz%2f..%2fv1%2fanalyses",
        "/sign-in/../v1/analyses",
    ],
)
def test_a_roundabout_way_tells_nothing(keyed, path):
    answer = keyed.client.get(path)
    assert answer.status_code in {401, 404}, answer.text
    assert '"items"' not in answer.text


FOREIGN = [
    ("GET", "/v1/models/{model}", None),
    ("DELETE", "/v1/models/{model}", None),
    ("GET", "/v1/data/{data}", None),
    ("DELETE", "/v1/data/{data}", None),
    ("GET", "/v1/architectures/{spec}", None),
    ("DELETE", "/v1/architectures/{spec}", None),
    ("GET", "/v1/analyses/{analysis}", None),
    ("DELETE", "/v1/analyses/{analysis}", None),
    ("POST", "/v1/analyses/{analysis}:cancel", None),
    ("GET", "/v1/analyses/{analysis}/events", None),
    ("GET", "/v1/analyses/{analysis}/report", None),
    ("GET", "/v1/analyses/{analysis}/layers", None),
    ("GET", "/v1/analyses/{analysis}/graph", None),
    ("GET", "/v1/analyses/{analysis}/spectra", None),
    ("GET", "/v1/analyses/{analysis}/gate", None),
    ("GET", "/v1/policies/{policy}", None),
    ("DELETE", "/v1/policies/{policy}", None),
    ("GET", "/v1/uploads/{upload}", None),
    ("PUT", "/v1/uploads/{upload}/parts/1", "x"),
    ("POST", "/v1/uploads/{upload}:complete", None),
    ("DELETE", "/v1/uploads/{upload}", None),
    ("POST", "/v1/analyses", {"model_id": "{model}"}),
    ("POST", "/v1/analyses", {"architecture_id": "{spec}"}),
    ("POST", "/v1/comparisons", {"base": "{analysis}", "head": "{analysis}"}),
]


@pytest.mark.parametrize("case", range(len(FOREIGN)))
def test_another_s_answers_as_what_is_not_there(keyed, own, attacker, case):
    method, path, body = FOREIGN[case]
    held = own[1]
    unknown = {name: f"{told[:-3]}zzz" for name, told in held.items()}
    answers = []
    for names in (held, unknown):
        told = {"content": b"x"} if body == "x" else {}
        if isinstance(body, dict):
            told = {"json": {k: v.format(**names) for k, v in body.items()}}
        answer = keyed.client.request(method, path.format(**names), headers=attacker, **told)
        text = answer.text.replace(answer.headers["x-request-id"], "")
        for value in names.values():
            text = text.replace(value, "ID")
        answers.append((answer.status_code, text))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


WRITES = [
    ("POST", "/v1/models"),
    ("DELETE", "/v1/models/x"),
    ("POST", "/v1/data"),
    ("DELETE", "/v1/data/x"),
    ("POST", "/v1/architectures"),
    ("DELETE", "/v1/architectures/x"),
    ("POST", "/v1/analyses"),
    ("DELETE", "/v1/analyses/x"),
    ("POST", "/v1/analyses/x:cancel"),
    ("PUT", "/v1/policies/x"),
    ("DELETE", "/v1/policies/x"),
    ("POST", "/v1/uploads"),
    ("PUT", "/v1/uploads/x/parts/1"),
    ("POST", "/v1/uploads/x:complete"),
    ("DELETE", "/v1/uploads/x"),
]


@pytest.fixture(scope="module")
def reader(keyed):
    return bearer(key(keyed, "victim", "reader", "read")[1])


@pytest.mark.parametrize("call", WRITES)
def test_a_key_that_reads_does_not_write(keyed, reader, call):
    problem(keyed.client.request(*call, headers=reader), 403, "scope_missing")


def test_a_key_that_reads_compares(keyed, reader, own):
    body = {"base": own[1]["analysis"], "head": own[1]["analysis"]}
    answer = keyed.client.post("/v1/comparisons", json=body, headers=reader)
    problem(answer, 409, "no_report")
    for call in ("compare", "judge", "render"):
        answer = keyed.client.post(f"/v1/reports:{call}", json={}, headers=reader)
        problem(answer, 422, "invalid_request")


def test_lists_hold_nothing_of_another_s(keyed, own, attacker):
    ids = set(own[1].values())
    for path in ("/v1/models", "/v1/data", "/v1/architectures", PATH, "/v1/policies"):
        told = keyed.client.get(path, headers=attacker).json()
        assert not ids & {each.get("id", each.get("name")) for each in told["items"]}
        assert keyed.client.get(path, headers=attacker).json()["next_cursor"] is None
    cursor = {"cursor": own[1]["analysis"][:-26] + "z" * 26}
    assert keyed.client.get(PATH, params=cursor, headers=attacker).json()["items"] == []
