"""Suppressions by fingerprint, with reason and last day."""

from datetime import date

import pytest
from pydantic import ValidationError

from gradgauge.schema.report import Coverage, Finding
from gradgauge.verdict.gate import decide
from gradgauge.verdict.policy import Policy
from gradgauge.verdict.suppress import suppress
from tests import reports

COVERED = Coverage(
    nodes_total=1,
    nodes_analytic=1,
    nodes_sampled=1,
    params_total=1,
    params_covered=1,
    unsupported_ops={},
)


def finding(**changes):
    return Finding.model_validate(reports.finding("critical", fingerprint="a", **changes))


def policy(**entry):
    return Policy.model_validate({"allow": [{"fingerprint": "a", "reason": "known"} | entry]})


def verdict(found, rules):
    return decide(found, COVERED, [], rules)[0]


@pytest.mark.parametrize("last", [None, "2026-03-01", "2026-03-02"])
def test_a_suppressed_finding_does_not_fail_and_carries_reason_and_last_day(last):
    entry = {"expires": last}
    told = suppress([finding()], policy(**entry), date(2026, 3, 1))
    reason = f"known (until {last})" if last else "known"
    assert (told[0].status, told[0].suppression) == ("suppressed", reason)
    assert verdict(told, policy(**entry)) == "pass"


def test_an_expired_suppression_counts_again_and_says_so():
    rules = policy(expires="2026-02-28")
    told = suppress([finding()], rules, date(2026, 3, 1))
    assert (told[0].status, told[0].suppression) == ("new", "expired on 2026-02-28: known")
    assert verdict(told, rules) == "fail"


def test_other_findings_and_fixed_ones_are_left_as_they_are():
    other = finding().model_copy(update={"fingerprint": "b"})
    found = [other, finding(status="fixed")]
    assert suppress(found, policy(), date(2026, 3, 1)) == found


@pytest.mark.parametrize(
    "allow",
    [
        [{"fingerprint": "a"}],
        [{"fingerprint": "a", "reason": "  "}],
        [{"fingerprint": "a", "reason": "x", "until": "2026-03-01"}],
        [{"fingerprint": "a", "reason": "x"}, {"fingerprint": "a", "reason": "y"}],
    ],
)
def test_a_suppression_without_reason_misspelt_or_twice_is_refused(allow):
    with pytest.raises(ValidationError):
        Policy.model_validate({"allow": allow})
