"""Findings and coverage to a verdict, by the rule of the report's contract."""

from collections import Counter
from collections.abc import Sequence

from gradgauge.schema.report import SEVERITIES, Coverage, Finding, Gate, Verdict
from gradgauge.verdict.policy import Policy

WARN_ON = "medium"
SETTLED = {"fixed", "suppressed"}  # neither fails nor warns


def decide(
    findings: Sequence[Finding],
    coverage: Coverage,
    inconclusive_reasons: Sequence[str],
    policy: Policy,
) -> tuple[Verdict, Gate]:
    """The verdict and the gate it comes with.

    A finding at or above the policy's severity fails; else too little coverage, an op that was not
    analysed or any of `inconclusive_reasons` makes it inconclusive, which does not pass the gate;
    else a medium finding warns. The gate's reason always carries why a verdict is inconclusive,
    also where a failure outranks it, so that a reader with another policy can decide again.
    """
    live = [finding for finding in findings if finding.status not in SETTLED]
    violating = [finding for finding in live if _reaches(finding, policy.fail_on)]
    doubts = [*_uncovered(coverage, policy), *inconclusive_reasons]
    if violating:
        verdict: Verdict = "fail"
    elif doubts:
        verdict = "inconclusive"
    else:
        verdict = "warn" if any(_reaches(finding, WARN_ON) for finding in live) else "pass"
    return verdict, Gate(
        policy=policy.label,
        passed=verdict in {"pass", "warn"},
        fail_on=policy.fail_on,
        violating_findings=[finding.id for finding in violating],
        reason=_reason(violating, doubts, policy),
    )


def _reaches(finding: Finding, severity: str) -> bool:
    if severity == "never":
        return False
    rank: dict[str, int] = {name: i for i, name in enumerate(SEVERITIES)}
    return rank[finding.severity] >= rank[severity]


def _uncovered(coverage: Coverage, policy: Policy) -> list[str]:
    doubts = []
    total = coverage.params_total
    share = coverage.params_covered / total if total else 1.0
    if share < policy.min_coverage:
        doubts.append(
            f"both engines cover {coverage.params_covered:,} of {total:,} parameters "
            f"({share:.1%}), below the {policy.min_coverage:.1%} the policy asks for"
        )
    if coverage.unsupported_ops:
        ops = ", ".join(sorted(coverage.unsupported_ops))
        doubts.append(f"no implementation of {ops}")
    return doubts


def _reason(violating: Sequence[Finding], doubts: Sequence[str], policy: Policy) -> str:
    counts = Counter(finding.severity for finding in violating)
    told = ", ".join(f"{counts[name]} {name}" for name in reversed(SEVERITIES) if counts[name])
    parts = [f"{told} at or above {policy.fail_on}"] if told else []
    if doubts:
        parts.append(f"inconclusive: {', '.join(doubts)}")
    if not parts and policy.fail_on == "never":
        parts.append("the policy fails on no finding")
    return "; ".join(parts) or f"no finding at or above {policy.fail_on}"
