"""The verdict's rule, case by case."""

import pytest
from pydantic import ValidationError

from gradgauge.schema.report import Coverage, Finding
from gradgauge.verdict.gate import decide
from gradgauge.verdict.policy import Policy
from tests import reports


def findings(*severities, **changes):
    return [Finding.model_validate(reports.finding(each, **changes)) for each in severities]


def coverage(covered=100, total=100, unsupported=None):
    return Coverage(
        nodes_total=4,
        nodes_analytic=4,
        nodes_sampled=4,
        params_total=total,
        params_covered=covered,
        unsupported_ops=unsupported or {},
    )


@pytest.mark.parametrize(
    ("severities", "covered", "reasons", "fail_on", "verdict"),
    [
        ([], 100, [], "high", "pass"),
        (["none", "low"], 100, [], "high", "pass"),
        (["low", "medium"], 100, [], "high", "warn"),
        (["high"], 100, [], "high", "fail"),
        (["critical"], 100, [], "high", "fail"),
        (["high"], 100, [], "critical", "warn"),
        (["medium"], 100, [], "medium", "fail"),
        (["low"], 100, [], "low", "fail"),
        (["critical"], 100, [], "never", "warn"),
        ([], 95, [], "high", "pass"),
        ([], 94, [], "high", "inconclusive"),
        (["medium"], 94, [], "high", "inconclusive"),
        (["high"], 94, [], "high", "fail"),
        ([], 100, ["forward differs from onnxruntime"], "high", "inconclusive"),
        (["critical"], 0, [], "never", "inconclusive"),
    ],
)
def test_the_verdict_is_the_contracts(severities, covered, reasons, fail_on, verdict):
    told, gate = decide(findings(*severities), coverage(covered), reasons, Policy(fail_on=fail_on))
    assert told == verdict
    assert gate.passed is (verdict in {"pass", "warn"})
    assert gate.fail_on == fail_on


def test_an_op_the_executor_lacks_is_inconclusive_at_any_coverage():
    verdict, gate = decide([], coverage(unsupported={"NonZero": 2}), [], Policy())
    assert verdict == "inconclusive"
    assert "NonZero" in gate.reason


def test_a_model_without_parameters_is_not_short_of_coverage():
    assert decide([], coverage(0, 0), [], Policy())[0] == "pass"


@pytest.mark.parametrize("status", ["suppressed", "fixed"])
def test_a_finding_that_is_settled_neither_fails_nor_warns(status):
    assert decide(findings("critical", status=status), coverage(), [], Policy())[0] == "pass"


def test_a_failure_still_says_why_it_would_be_inconclusive():
    _, gate = decide(findings("high"), coverage(50), ["forward differs"], Policy())
    assert gate.violating_findings == ["F001"]
    failed, _, doubt = gate.reason.partition("inconclusive: ")
    assert failed == "1 high at or above high; "
    assert "50 of 100 parameters" in doubt
    assert "forward differs" in doubt


def test_a_policy_is_named_with_its_version_and_refuses_what_it_does_not_know():
    assert decide([], coverage(), [], Policy())[1].policy == "default@1"
    with pytest.raises(ValidationError):
        Policy(fail_on="sometimes")
    with pytest.raises(ValidationError):
        Policy(min_coverage=1.5)
