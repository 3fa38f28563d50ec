"""A stored report judged by another policy than the one it was written under."""

import re
from collections.abc import Sequence
from datetime import date

from gradgauge.schema.report import Finding, Gate, Report, Verdict
from gradgauge.verdict.gate import decide
from gradgauge.verdict.policy import Policy
from gradgauge.verdict.suppress import suppress

_DOUBT = "inconclusive: "
_TOO_LITTLE = re.compile(
    r"both engines cover [\d,]+ of [\d,]+ parameters \([\d.]+%\), "
    r"below the [\d.]+% the policy asks for(, )?"
)


def evaluate(
    report: Report,
    policy: Policy,
    today: date,
    *,
    findings: Sequence[Finding] | None = None,
    only_new: bool = False,
) -> tuple[list[Finding], Verdict, Gate]:
    """The findings as the policy marks them, the verdict and the gate.

    `findings` stand for the report's own, such as a comparison's; with `only_new` those of another
    status than `new` neither fail nor warn. Whatever else made the report inconclusive still does.
    """
    marked = suppress(report.findings if findings is None else findings, policy, today)
    counting = [finding for finding in marked if not only_new or finding.status == "new"]
    verdict, gate = decide(counting, report.coverage, doubts(report), policy)
    return marked, verdict, gate


def doubts(report: Report) -> list[str]:
    """Why the report is inconclusive, but for what its coverage says and a policy weighs."""
    if report.gate is None:
        return [report.summary.headline] if report.summary.verdict == "inconclusive" else []
    told = report.gate.reason.partition(_DOUBT)[2]
    told = _TOO_LITTLE.sub("", told, count=1)
    ops = ", ".join(sorted(report.coverage.unsupported_ops))
    if ops:
        told = told.removeprefix(f"no implementation of {ops}").removeprefix(", ")
    return [told] if told else []
