"""The gate decided again from a report's findings, for a threshold given on the command line."""

from collections.abc import Callable
from typing import Any

Judge = Callable[[dict[str, Any]], dict[str, Any]]

SEVERITIES = ("none", "low", "medium", "high", "critical")
SETTLED = {"fixed", "suppressed"}
DOUBT = "inconclusive: "  # the contract: what follows it in a gate's reason says why


def by_severity(fail_on: str | None) -> Judge | None:
    """The judge that a severity alone needs; None where the report's own gate stands."""
    return None if fail_on is None else lambda report: regate(report, fail_on)


def regate(report: dict[str, Any], fail_on: str) -> dict[str, Any]:
    """A copy of `report` whose verdict and gate follow `fail_on`, a severity or `never`.

    Only what a threshold decides is decided again: a report that is inconclusive, or would be but
    for a failure, stays so.
    """
    live = [finding for finding in report["findings"] if finding["status"] not in SETTLED]
    violating = [f for f in live if _reaches(f["severity"], fail_on)]
    doubt = _doubt(report)
    if violating:
        verdict = "fail"
    elif doubt:
        verdict = "inconclusive"
    else:
        verdict = "warn" if any(_reaches(f["severity"], "medium") for f in live) else "pass"
    reasons = [_told(len(violating), fail_on)] if violating or not doubt else []
    reasons += [DOUBT + doubt] if doubt else []
    gate = {
        "policy": "command-line",
        "passed": verdict in {"pass", "warn"},
        "fail_on": fail_on,
        "violating_findings": [finding["id"] for finding in violating],
        "reason": "; ".join(reasons),
    }
    return report | {"summary": report["summary"] | {"verdict": verdict}, "gate": gate}


def _reaches(severity: str, fail_on: str) -> bool:
    return fail_on != "never" and SEVERITIES.index(severity) >= SEVERITIES.index(fail_on)


def _told(count: int, fail_on: str) -> str:
    if fail_on == "never":
        return "no finding fails it, as asked"
    return f"{count or 'no'} finding{'' if count == 1 else 's'} at or above {fail_on}"


def _doubt(report: dict[str, Any]) -> str:
    gate = report["gate"] or {"reason": ""}
    told: str = gate["reason"].partition(DOUBT)[2]
    if not told and report["summary"]["verdict"] == "inconclusive":
        told = report["summary"]["headline"]
    return told
