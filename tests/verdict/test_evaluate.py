"""A report judged again: what a policy weighs is weighed anew, everything else stays."""

from datetime import date

import pytest

from gradgauge.schema.report import Report
from gradgauge.verdict.compare import compare
from gradgauge.verdict.evaluate import doubts, evaluate
from gradgauge.verdict.gate import decide
from gradgauge.verdict.policy import Policy, Suppression
from tests import reports

TODAY = date(2026, 11, 26)
OTHER = ["the forward pass differs from onnxruntime's", "no layer's gradient is known, none"]


def made(*, covered=826378, unsupported=(), findings=(), others=(), policy=None):
    """A report whose gate is what `decide` says of it."""
    told = reports.report(findings=list(findings), recommendations=[])
    told["coverage"] |= {
        "params_covered": covered,
        "unsupported_ops": dict.fromkeys(unsupported, 1),
    }
    report = Report.model_validate(told)
    verdict, gate = decide(report.findings, report.coverage, others, policy or Policy())
    summary = report.summary.model_copy(update={"verdict": verdict})
    return report.model_copy(update={"gate": gate, "summary": summary})


@pytest.mark.parametrize("findings", [[], [reports.finding()]])
@pytest.mark.parametrize("covered", [826378, 1])
@pytest.mark.parametrize("unsupported", [(), ("Foo", "Bar")])
@pytest.mark.parametrize("others", [[], OTHER[:1], OTHER])
@pytest.mark.parametrize("policy", [Policy(), Policy(fail_on="never", min_coverage=0.0)])
def test_judging_again_by_any_policy_is_judging_once(
    findings, covered, unsupported, others, policy
):
    """Whatever it was written under: `decide` on the unwritten reasons is the oracle."""
    parts = {"covered": covered, "unsupported": unsupported, "findings": findings}
    first = made(**parts, others=others, policy=policy)
    for again in (Policy(), Policy(fail_on="low", min_coverage=1.0), policy):
        expected, _ = decide(first.findings, first.coverage, others, again)
        marked, verdict, gate = evaluate(first, again, TODAY)
        assert (marked, verdict) == (list(first.findings), expected)
        assert gate.policy == again.label
        assert all(reason in gate.reason for reason in others)
    assert doubts(first) == ([", ".join(others)] if others else [])


def test_a_report_without_a_gate_keeps_its_doubt():
    bare = made().model_copy(update={"gate": None})
    assert doubts(bare) == []
    unsure = bare.summary.model_copy(update={"verdict": "inconclusive", "headline": "why"})
    assert doubts(bare.model_copy(update={"summary": unsure})) == ["why"]


def test_what_the_policy_allows_does_not_fail():
    report = made(findings=[reports.finding()])
    allowed = Suppression(fingerprint="b1c0e8f27a4411aa", reason="known", expires=TODAY)
    marked, verdict, gate = evaluate(report, Policy(allow=(allowed,)), TODAY)
    assert (verdict, gate.passed, marked[0].status) == ("pass", True, "suppressed")
    tomorrow = TODAY.replace(day=TODAY.day + 1)
    _, verdict, _ = evaluate(report, Policy(allow=(allowed,)), tomorrow)
    assert verdict == "fail"


def test_of_a_comparison_only_what_is_new_may_count():
    base = made(findings=[reports.finding()])
    head = made(findings=[reports.finding(), reports.finding("high", id="F2", fingerprint="x")])
    for report, failing in ((head, ["F2"]), (base, [])):
        told = compare(base, report)
        found = [*told.new, *told.existing]
        _, verdict, gate = evaluate(report, Policy(), TODAY, findings=found, only_new=True)
        assert (verdict == "fail", gate.violating_findings) == (bool(failing), failing)
        _, verdict, _ = evaluate(report, Policy(), TODAY, findings=found)
        assert verdict == "fail"
