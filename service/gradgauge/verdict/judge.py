"""A report judged again: by a policy, its suppressions and an earlier report of the network."""

from collections.abc import Sequence
from datetime import date

from gradgauge.schema.report import Finding, Gate, Report
from gradgauge.verdict.compare import compare
from gradgauge.verdict.evaluate import evaluate
from gradgauge.verdict.policy import Policy


def judge(
    report: Report,
    policy: Policy,
    today: date,
    *,
    baseline: Report | None = None,
    only_new: bool = False,
) -> Report:
    """`report` with the verdict, gate and findings' statuses that the arguments ask for.

    What an earlier judgement wrote is forgotten first. Against a baseline, findings are `new` or
    `existing`, and its findings that are gone follow as `fixed`; with `only_new`, existing ones
    neither fail nor warn. What was measured stays as it is; the headline is the first finding's
    that counts.
    """
    fresh = [
        finding.model_copy(update={"status": "new", "suppression": None})
        for finding in report.findings
        if finding.status != "fixed"
    ]
    fixed: list[Finding] = []
    if baseline is not None:
        fresh, fixed = _against(baseline, report.model_copy(update={"findings": fresh}))
    findings, verdict, gate = evaluate(report, policy, today, findings=fresh, only_new=only_new)
    counted = {"new"} if only_new else {"new", "existing"}
    live = [finding for finding in findings if finding.status in counted]
    headline = _headline(report, findings, live, policy)
    return report.model_copy(
        update={
            "summary": report.summary.model_copy(update={"verdict": verdict, "headline": headline}),
            "gate": _noted(gate, findings, baseline, only_new=only_new),
            "findings": findings + fixed,
            "compared_to": baseline.id if baseline is not None else None,
        }
    )


def _against(baseline: Report, report: Report) -> tuple[list[Finding], list[Finding]]:
    """The report's findings in their order, new or existing, and the baseline's that are gone."""
    told = compare(baseline, report)
    statuses = {finding.id: finding for finding in (*told.new, *told.existing)}
    here = {layer.name: layer.id for layer in report.layers}
    names = {layer.id: layer.name for layer in baseline.layers}
    places = {key: here[name] for key, name in names.items() if name in here}
    start = len(report.findings) + 1
    fixed = [_carried(each, n, places) for n, each in enumerate(told.fixed, start)]
    return [statuses[finding.id] for finding in report.findings], fixed


def _carried(finding: Finding, number: int, places: dict[str, str]) -> Finding:
    """A finding of the baseline, its layers those of the same name in the report, if any."""
    return finding.model_copy(
        update={
            "id": f"F{number:03d}",
            "origins": [places[key] for key in finding.origins if key in places],
            "affected": [places[key] for key in finding.affected if key in places],
            "recommendation_ids": [],
            "suppression": None,
        }
    )


def _headline(
    report: Report, findings: Sequence[Finding], live: Sequence[Finding], policy: Policy
) -> str:
    """The report's own, unless it tells of a finding that does not count."""
    grave = [finding for finding in findings if finding.severity != "low"]
    if not grave or any(finding.id == grave[0].id for finding in live):
        return report.summary.headline
    first = next((finding for finding in live if finding.severity != "low"), None)
    if first is not None:
        return f"{first.title}: {first.message}"
    return f"No finding counts under {policy.label}; what was found first: {grave[0].title}"


def _noted(
    gate: Gate, findings: Sequence[Finding], baseline: Report | None, *, only_new: bool
) -> Gate:
    """The gate, its reason preceded by what was not counted and why."""
    suppressed = sum(1 for f in findings if f.status == "suppressed")
    expired = sum(1 for f in findings if f.suppression is not None) - suppressed
    known = sum(1 for f in findings if f.status == "existing") if only_new else 0
    notes = [f"{suppressed} suppressed"] if suppressed else []
    notes += [f"{expired} whose suppression has expired"] if expired else []
    notes += [f"{known} known from {baseline.id}"] if known and baseline is not None else []
    return gate.model_copy(update={"reason": "; ".join([*notes, gate.reason])})
