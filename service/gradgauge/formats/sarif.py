"""Reports as SARIF 2.1.0 (OASIS), findings only: one run, a result for each, one file a model."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gradgauge.formats import words
from gradgauge.formats.names import display
from gradgauge.formats.subject import LONGEST_PATH, Subject
from gradgauge.schema.report import SEVERITIES, Finding

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
MOST_RESULTS = 5000  # what GitHub shows of one run
LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "note", "none": "none"}
BASELINE = {"new": "new", "existing": "unchanged", "fixed": "absent"}
_BRACKETS = re.compile(r"([\\\[\]])")

Json = dict[str, Any]


def to_sarif(subjects: Sequence[Subject]) -> str:
    """ASCII JSON; beyond 5,000 results the gravest, and a notification that says so."""
    found = [(subject, finding) for subject in subjects for finding in subject.report.findings]
    found.sort(key=lambda pair: -SEVERITIES.index(pair[1].severity))
    rules = list({check.rule_id: check for s in subjects for check in s.report.checks}.values())
    places = {rule.rule_id: i for i, rule in enumerate(rules)}
    files = {subject.path: i for i, subject in enumerate(subjects)}
    driver = {
        "name": "gradgauge",
        "version": subjects[0].report.provenance.service_version if subjects else "unknown",
        "rules": [{"id": r.rule_id, "shortDescription": {"text": _text(r.title)}} for r in rules],
    }
    told = [_notice(subject.uri, doubt) for subject in subjects if (doubt := subject.doubt())]
    if len(found) > MOST_RESULTS:
        told.append(_notice(None, f"{len(found) - MOST_RESULTS} results are left out"))
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "artifacts": [{"location": {"uri": subject.uri}} for subject in subjects],
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": told}],
        "results": [
            dict(_result(subject, finding, places, files[subject.path]))
            for subject, finding in found[:MOST_RESULTS]
        ],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _result(
    subject: Subject, finding: Finding, places: dict[str, int], file: int
) -> Iterator[tuple[str, Any]]:
    yield "ruleId", finding.rule_id
    if finding.rule_id in places:
        yield "ruleIndex", places[finding.rule_id]
    yield "level", LEVELS[finding.severity]
    yield "message", {"text": _text(f"{finding.title}: {finding.message}")}
    yield "locations", [_location(subject, finding, file)]
    yield "partialFingerprints", {"gradgauge/v1": finding.fingerprint}
    if subject.report.compared_to is not None and finding.status in BASELINE:
        yield "baselineState", BASELINE[finding.status]
    if finding.status == "suppressed":
        why = _text(finding.suppression or "")
        yield "suppressions", [{"kind": "external", "status": "accepted", "justification": why}]
    yield (
        "properties",
        {
            "severity": finding.severity,
            "category": finding.category,
            "confidence": finding.confidence,
            "evidence": [f"{e.metric}: {words.condition(e)}" for e in finding.evidence],
        },
    )


def _location(subject: Subject, finding: Finding, file: int) -> Json:
    """The file's first line, since a model has no other and a node alone is no place to GitHub."""
    artifact = {"uri": subject.uri, "index": file}
    place: Json = {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": 1}}}
    name = subject.place(finding)
    if name is not None:
        logical = {"fullyQualifiedName": display(name, LONGEST_PATH), "kind": "member"}
        place["logicalLocations"] = [logical]
    return place


def _notice(uri: str | None, text: str) -> Json:
    notice: Json = {"level": "warning", "message": {"text": _text(text)}}
    if uri is not None:
        notice["locations"] = [{"physicalLocation": {"artifactLocation": {"uri": uri}}}]
    return notice


def _text(text: str) -> str:
    """As it reads: brackets would be a link (3.11.6), braces a placeholder (3.11.5)."""
    plain = _BRACKETS.sub(r"\\\1", display(text, LONGEST_PATH))
    return plain.replace("{", "{{").replace("}", "}}")
