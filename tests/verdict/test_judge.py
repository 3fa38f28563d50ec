"""A report judged again: what counts, what the gate says of it, what is left as it was."""

from datetime import date

import pytest

from gradgauge.schema.report import Report
from gradgauge.verdict.gate import decide
from gradgauge.verdict.judge import judge
from gradgauge.verdict.policy import Policy
from tests import reports

TODAY = date(2026, 3, 1)


def finding(fingerprint, severity="critical", number=1, **changes):
    told = {"id": f"F{number:03d}", "fingerprint": fingerprint, "title": f"T{fingerprint}"}
    return reports.finding(severity, **(told | changes))


def report(*findings, covered=100, doubts=(), policy=None, **changes):
    """A report as compose would give it under the policy."""
    coverage = reports.report()["coverage"] | {"params_total": 100, "params_covered": covered}
    coverage |= changes.pop("coverage", {})
    held = Report.model_validate(
        reports.report(depth=20, findings=list(findings), coverage=coverage, **changes)
    )
    verdict, gate = decide(held.findings, held.coverage, doubts, policy or Policy())
    summary = held.summary.model_copy(update={"verdict": verdict})
    return held.model_copy(update={"gate": gate, "summary": summary})


def allowing(**entry):
    return Policy.model_validate({"allow": [{"fingerprint": "a", "reason": "known"} | entry]})


def statuses(told):
    return [(f.fingerprint, f.status) for f in told.findings]


def test_a_suppressed_finding_stays_in_the_report_and_leaves_the_verdict_to_the_others():
    told = judge(report(finding("a"), finding("b", "medium", 2)), allowing(), TODAY)
    assert statuses(told) == [("a", "suppressed"), ("b", "new")]
    assert (told.summary.verdict, told.gate.passed, told.gate.violating_findings) == (
        "warn",
        True,
        [],
    )
    assert told.gate.reason == "1 suppressed; no finding at or above high"
    assert told.summary.headline.startswith("Tb: ")


def test_where_all_are_suppressed_the_headline_says_so():
    told = judge(report(finding("a")), allowing(), TODAY)
    assert told.summary.verdict == "pass"
    assert told.summary.headline == "No finding counts under default@1; what was found first: Ta"


def test_an_expired_suppression_fails_again_and_the_gate_says_why():
    told = judge(report(finding("a")), allowing(expires="2026-02-28"), TODAY)
    assert told.summary.verdict == "fail"
    assert told.findings[0].suppression == "expired on 2026-02-28: known"
    assert told.gate.reason.startswith("1 whose suppression has expired; 1 critical")
    assert told.summary.headline == reports.report()["summary"]["headline"]


@pytest.mark.parametrize(("only_new", "verdict"), [(False, "fail"), (True, "pass")])
def test_what_the_baseline_knows_fails_unless_only_new_findings_count(only_new, verdict):
    base = report(finding("a"), id="rep_base")
    told = judge(report(finding("a")), Policy(), TODAY, baseline=base, only_new=only_new)
    assert statuses(told) == [("a", "existing")]
    assert told.summary.verdict == verdict
    assert told.compared_to == "rep_base"
    assert ("1 known from rep_base" in told.gate.reason) is only_new


def test_a_new_finding_fails_where_only_new_ones_count():
    base = report(finding("a"))
    head = report(finding("a"), finding("b", "high", 2))
    told = judge(head, Policy(), TODAY, baseline=base, only_new=True)
    assert told.summary.verdict == "fail"
    assert told.gate.violating_findings == ["F002"]
    assert told.summary.headline.startswith("Tb: ")


def test_what_is_gone_follows_as_fixed_under_its_own_number_at_the_layers_that_are_left():
    base = report(finding("a", origins=["L0018"], affected=["L0000", "L0001"]))
    layers = [reports.layer(i + 5, name=f"/fc.{i}/Gemm") for i in range(1, 20)]
    head = report(finding("b"), layers=layers)
    told = judge(head, Policy(), TODAY, baseline=base)
    assert statuses(told) == [("b", "new"), ("a", "fixed")]
    gone = told.findings[1]
    assert (gone.id, gone.origins, gone.affected) == ("F002", ["L0023"], ["L0006"])
    assert gone.recommendation_ids == []
    assert Report.model_validate(told.model_dump()) == told


def test_judging_twice_forgets_the_first_judgement():
    head, base = report(finding("a")), report(finding("c"))
    first = judge(head, allowing(), TODAY, baseline=base)
    assert judge(first, Policy(), TODAY).findings == head.findings
    assert judge(first, Policy(), TODAY).gate == head.gate


@pytest.mark.parametrize("severity", ["medium", "critical"])
@pytest.mark.parametrize("covered", [50, 100])
@pytest.mark.parametrize("ops", [{}, {"NonZero": 2, "Unique": 1}])
@pytest.mark.parametrize("doubts", [[], ["the forward pass differs from onnxruntime's"]])
def test_it_decides_as_if_the_policy_had_been_there_from_the_start(severity, covered, ops, doubts):
    other = Policy(name="lax", fail_on="never", min_coverage=0.4)
    given = {"covered": covered, "doubts": doubts, "coverage": {"unsupported_ops": ops}}
    found = finding("a", severity)
    expected = report(found, policy=other, **given)
    told = judge(report(found, **given), other, TODAY)
    assert (told.summary.verdict, told.gate) == (expected.summary.verdict, expected.gate)


def test_an_inconclusive_report_without_a_gate_stays_inconclusive():
    held = report(doubts=["x"]).model_copy(update={"gate": None})
    assert judge(held, Policy(), TODAY).summary.verdict == "inconclusive"
