"""A policy's allow-list laid over findings: what is suppressed, and what no longer is."""

from collections.abc import Sequence
from datetime import date

from gradgauge.schema.report import Finding
from gradgauge.verdict.policy import Policy


def suppress(findings: Sequence[Finding], policy: Policy, today: date) -> list[Finding]:
    """Findings, those that the policy allows marked `suppressed` with the reason.

    A suppression holds through its last day, which `suppression` tells with the reason. One whose
    day is past leaves its finding counting as before, and `suppression` says since when.
    """
    allowed = {entry.fingerprint: entry for entry in policy.allow}
    told = []
    for finding in findings:
        entry = allowed.get(finding.fingerprint)
        if entry is None or finding.status == "fixed":
            told.append(finding)
        elif entry.expires is not None and entry.expires < today:
            note = f"expired on {entry.expires.isoformat()}: {entry.reason}"
            told.append(finding.model_copy(update={"suppression": note}))
        else:
            last = f" (until {entry.expires.isoformat()})" if entry.expires is not None else ""
            change = {"status": "suppressed", "suppression": entry.reason + last}
            told.append(finding.model_copy(update=change))
    return told
