"""JSON that two readers take for different things, at every call that reads JSON."""

import pytest

from tests.api.problem import problem

CALLS = {
    "analyses": ("POST", "/v1/analyses"),
    "comparisons": ("POST", "/v1/comparisons"),
    "comparisons of kept reports": ("POST", "/v1/reports:compare"),
    "judgements": ("POST", "/v1/reports:judge"),
    "renderings": ("POST", "/v1/reports:render"),
    "policies": ("PUT", "/v1/policies/hostile"),
    "uploads": ("POST", "/v1/uploads"),
    "webhooks": ("POST", "/v1/webhooks"),
}
NOT_JSON = {
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "out of range": b'{"a": 1e999}',
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice by escape": b'{"a": 1, "\\u0061": 2}',
    "half a surrogate": b'{"a": "\\ud800"}',
    "half a surrogate as a key": b'{"\\udfff": 1}',
    "65 levels": b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}",
    "100,000 levels": b"[" * 100_000,
    "6,000 digits": b'{"a": ' + b"9" * 6000 + b"}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "no UTF-8": b'{"a": "\xff"}',
    "an overlong NUL": b'{"a": "\xc0\x80"}',
    "a comment": b'{"a": 1 /* b */}',
    "single quotes": b"{'a': 1}",
    "a trailing comma": b'{"a": 1,}',
    "two documents": b"{}{}",
    "half a document": b'{"a": [1',
    "a raw control character": b'{"a": "\x01"}',
    "a leading zero": b'{"a": 01}',
    "white space only": b"   ",
}
WRONG = {
    "a list": [],
    "a text": "a",
    "a number": 1,
    "null": None,
    "a prototype": {"__proto__": {"admin": True}},
    "a constructor": {"constructor": {"prototype": {}}},
    "a path to a class": {"$ref": "file:///etc/passwd"},
    "a class": {"py/object": "os.system"},
    "ten thousand fields": {f"f{i}": i for i in range(10_000)},
}
# As another type that a lax reader would convert.
LAX = [
    ("POST", "/v1/analyses", {"architecture_id": "arc_x", "options": {"seed": True}}),
    ("POST", "/v1/analyses", {"architecture_id": "arc_x", "options": {"seed": "8"}}),
    ("POST", "/v1/analyses", {"architecture_id": "arc_x", "options": {"samples": 8.0}}),
    ("POST", "/v1/analyses", {"architecture_id": "arc_x", "options": {"data": "/etc/passwd"}}),
    ("POST", "/v1/analyses", {"architecture_id": "arc_x", "fresh": "true"}),
    ("POST", "/v1/analyses", {"architecture_id": ["arc_x"]}),
    ("POST", "/v1/analyses", {"architecture_id": "arc_x' OR '1'='1"}),
    ("POST", "/v1/analyses", {"architecture_id": "arc_\x00"}),
    ("POST", "/v1/comparisons", {"base": "a", "head": "b", "only_new": 1}),
    ("POST", "/v1/comparisons", {"base": "a", "head": "b", "policy": "../x"}),
    ("PUT", "/v1/policies/hostile", {"min_coverage": True}),
    ("PUT", "/v1/policies/hostile", {"min_coverage": "0.9"}),
    ("PUT", "/v1/policies/hostile", {"allow": {"fingerprint": "x", "reason": "y"}}),
    ("PUT", "/v1/policies/hostile", {"allow": [{"fingerprint": "x", "reason": "y"}] * 5001}),
    ("POST", "/v1/uploads", {"size_bytes": True}),
    ("POST", "/v1/uploads", {"size_bytes": -1}),
    ("POST", "/v1/uploads", {"size_bytes": 1 << 70}),
    ("POST", "/v1/uploads", {"sha256": "0" * 63}),
    ("POST", "/v1/uploads", {"name": ""}),
    ("POST", "/v1/uploads", {"name": "x" * 256}),
]
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("call", sorted(CALLS))
@pytest.mark.parametrize("name", sorted(NOT_JSON))
def test_what_is_no_json_is_told_so(api, call, name):
    answer = api.request(*CALLS[call], content=NOT_JSON[name], headers=JSON)
    problem(answer, 422, "invalid_json")
    assert len(answer.content) < 2000


@pytest.mark.parametrize("call", sorted(CALLS))
@pytest.mark.parametrize("name", sorted(WRONG))
def test_json_that_is_not_asked_for_is_refused_in_few_words(api, call, name):
    answer = api.request(*CALLS[call], json=WRONG[name])
    problem(answer, 422, "invalid_request")
    assert len(answer.content) < 3000
    assert "passwd" not in answer.text


@pytest.mark.parametrize("case", range(len(LAX)))
def test_nothing_is_taken_for_what_it_is_not(api, case):
    method, path, body = LAX[case]
    answer = api.request(method, path, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
