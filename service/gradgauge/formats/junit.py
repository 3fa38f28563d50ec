"""Reports as JUnit XML: a suite for each model, a case for each rule, one for the verdict."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from gradgauge.formats import words
from gradgauge.formats.names import display
from gradgauge.formats.subject import LONGEST_PATH, Subject
from gradgauge.schema.report import Check, Finding


def to_junit(subjects: Sequence[Subject]) -> str:
    """XML in ASCII. A case fails where the gate does by it, a verdict that is none is an error."""
    root = ET.Element("testsuites", {"name": "gradgauge"})
    for subject in subjects:
        _suite(root, subject)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    text: str = ET.tostring(root, encoding="us-ascii", xml_declaration=True).decode("ascii")
    return text + "\n"


def _suite(root: ET.Element, subject: Subject) -> None:
    provenance = subject.report.provenance
    took = (provenance.finished_at - provenance.started_at).total_seconds()
    suite = ET.SubElement(root, "testsuite", {"name": subject.shown, "time": f"{took:.3f}"})
    suite.set("timestamp", provenance.started_at.strftime("%Y-%m-%dT%H:%M:%S"))
    for check in subject.report.checks:
        _rule(suite, subject, check)
    verdict = _case(suite, subject, "verdict")
    doubt = subject.doubt()
    if doubt is not None:
        ET.SubElement(verdict, "error", {"type": "inconclusive", "message": doubt}).text = doubt
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(sum(1 for case in suite if case.find(tag) is not None)))
    suite.set("tests", str(len(suite)))


def _case(suite: ET.Element, subject: Subject, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", {"classname": subject.shown, "name": name})


def _rule(suite: ET.Element, subject: Subject, check: Check) -> None:
    case = _case(suite, subject, display(f"{check.rule_id} {check.title}"))
    if check.status in {"not_run", "not_applicable"}:
        why = display(f"{check.status.replace('_', ' ')}: {check.reason}", LONGEST_PATH)
        ET.SubElement(case, "skipped", {"message": why})
        return
    told = [f for f in subject.report.findings if f.rule_id == check.rule_id]
    failing = [f for f in told if subject.violates(f)]
    if failing:
        first = failing[0]
        about = {"type": first.severity, "message": display(first.message, LONGEST_PATH)}
        ET.SubElement(case, "failure", about).text = "\n".join(_line(f, subject) for f in failing)
    others = [_line(f, subject) for f in told if f not in failing]
    if others:
        ET.SubElement(case, "system-out").text = "\n".join(others)


def _line(finding: Finding, subject: Subject) -> str:
    place = subject.place(finding)
    told = f"{finding.severity}, {finding.status}: {finding.message}"
    told += f"; starts at {place}" if place is not None else ""
    told += f"; {finding.suppression}" if finding.suppression else ""
    evidence = "; ".join(f"{e.metric} {words.condition(e)}" for e in finding.evidence)
    return display(f"{told}; {evidence}", 2 * LONGEST_PATH)
