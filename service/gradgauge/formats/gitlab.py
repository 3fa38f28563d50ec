"""Reports as a GitLab Code Quality report: a JSON list of issues."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from gradgauge.formats.names import display
from gradgauge.formats.subject import LONGEST_PATH, Subject

SEVERITIES = {
    "critical": "blocker",
    "high": "critical",
    "medium": "major",
    "low": "minor",
    "none": "info",
}


def to_gitlab(subjects: Sequence[Subject]) -> str:
    """ASCII JSON of what counts, the gravest of each model first; an open verdict is an issue."""
    issues = [issue for subject in subjects for issue in _issues(subject)]
    return json.dumps(issues, indent=2) + "\n"


def _issues(subject: Subject) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for finding in subject.live():
        # GitLab keeps one issue a fingerprint, and ours names no model
        seen[finding.fingerprint] += 1
        told = f"{finding.title}: {finding.message}"
        key = f"{finding.fingerprint}:{seen[finding.fingerprint]}"
        yield _issue(subject, finding.rule_id, told, SEVERITIES[finding.severity], key)
    doubt = subject.doubt()
    if doubt is not None:
        yield _issue(subject, "inconclusive", doubt, "major", "inconclusive")


def _issue(subject: Subject, rule: str, told: str, severity: str, key: str) -> dict[str, Any]:
    whole = json.dumps([subject.path, rule, key])
    return {
        "description": display(told, LONGEST_PATH),
        "check_name": display(rule),
        "fingerprint": hashlib.sha256(whole.encode()).hexdigest(),
        "severity": severity,
        "location": {"path": subject.shown, "lines": {"begin": 1}},
    }
