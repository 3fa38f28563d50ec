"""Policies as text: what is read, and what a refusal names."""

import pytest

from gradgauge.errors import InvalidOptions
from gradgauge.verdict.policy import Policy
from gradgauge.verdict.read import read_policy, read_suppressions

TEXT = """
name: nightly
version: 3
fail_on: medium
min_coverage: 0.9
allow:
  - {fingerprint: b1c0e8f27a4411aa, reason: head is zero by design, expires: 2026-12-31}
  - {fingerprint: c1c0e8f27a4411aa, reason: "known"}
"""


def test_yaml_and_json_say_the_same():
    policy = read_policy(TEXT)
    assert read_policy(policy.model_dump_json()) == policy
    assert policy.label == "nightly@3"
    assert policy.allow[0].expires.isoformat() == "2026-12-31"
    assert policy.allow[1].expires is None
    assert read_policy("") == Policy()


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        ("fail-on: high", "fail-on", "did you mean 'fail_on'?"),
        ("fail_on: hihg", "fail_on", "did you mean 'high'?"),
        ("min_coverage: 95", "min_coverage", "less than or equal to 1"),
        ("min_coverage: '0.9'", "min_coverage", "must be a number"),
        ("min_coverage: .nan", "min_coverage", "not a finite number"),
        ("version: true", "version", "whole number"),
        ("name: a b", "name", "pattern"),
        ("allow: {}", "allow", "must be a list"),
        ("allow: [{reason: x}]", "allow[0].fingerprint", "required"),
        ("allow: [{fingerprint: a}]", "allow[0].reason", "required"),
        ("allow: [{fingerprint: a, reason: ' '}]", "allow[0].reason", "at least 1"),
        ("allow: [{fingerprint: a, reason: x, expire: 2026-01-01}]", "allow[0].expire", "expires"),
        ("allow: [{fingerprint: a, reason: x, expires: soon}]", "allow[0].expires", "2026-12-31"),
        ("allow: [{fingerprint: a, reason: x, expires: 20261}]", "allow[0].expires", "not a day"),
        (
            "allow: [{fingerprint: a, reason: x}, {fingerprint: a, reason: y}]",
            "allow[1].fingerprint",
            "twice",
        ),
        ("- high", "", "must be a mapping"),
        ("fail_on: [", "line 2", "not YAML"),
        ("fail_on: high\nfail_on: low", "fail_on", "given twice"),
    ],
)
def test_a_fault_is_named_by_its_path_with_the_nearest_word(text, where, told):
    with pytest.raises(InvalidOptions) as refused:
        read_policy(text)
    assert (refused.value.where or "").startswith(where)
    assert told in str(refused.value)


def test_suppressions_alone_hold_nothing_else():
    assert len(read_suppressions("allow: [{fingerprint: a, reason: x}]").allow) == 1
    with pytest.raises(InvalidOptions, match="no field 'fail_on'"):
        read_suppressions("fail_on: never")
