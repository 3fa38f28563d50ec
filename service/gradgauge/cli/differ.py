"""`gradgauge diff`: two kept reports of one network, and what the second changed."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from gradgauge.cli.said import say
from gradgauge.errors import GradgaugeError
from gradgauge.formats import words as told
from gradgauge.formats.names import display
from gradgauge.schema.report import Finding, Report
from gradgauge.verdict.compare import Comparison, compare
from gradgauge.verdict.evaluate import evaluate
from gradgauge.verdict.files import read_file
from gradgauge.verdict.policy import Policy
from gradgauge.verdict.read import read_policy, read_report

MOVED = 0.3  # decades, a factor of two, below which a layer's gradient has stayed where it was
SHOWN = 10
CODES = {"pass": 0, "warn": 0, "fail": 1, "inconclusive": 3}
SIGNS = {"new": "+", "existing": " ", "fixed": "-"}


def diff(words: Sequence[str]) -> int:
    """Print what changed: 0, 1 where a new finding fails the gate, 2, 3 as `check`."""
    given = _parser().parse_args(list(words))
    try:
        base, head = (read_file(str(path), read_report) for path in (given.base, given.head))
        policy = read_file(str(given.policy), read_policy) if given.policy else Policy()
    except GradgaugeError as error:
        return say(str(error), 2)
    if given.fail_on:
        policy = Policy.model_validate(dict(policy) | {"fail_on": given.fail_on})
    changes = compare(base, head)
    today = datetime.now(UTC).date()
    new, verdict, gate = evaluate(head, policy, today, findings=changes.new)
    if given.format == "json":
        held = changes.model_copy(update={"new": new}).model_dump(mode="json")
        held |= {"verdict": verdict, "gate": gate.model_dump(mode="json")}
        sys.stdout.write(json.dumps(held, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.writelines(
            f"{line}\n" for line in _lines(changes.model_copy(update={"new": new}), base, head)
        )
        passed = "passed" if gate.passed else "not passed"
        sys.stdout.write(f"gate of new findings: {passed}, {gate.reason}\n")
    return CODES[verdict]


def _lines(changes: Comparison, base: Report, head: Report) -> Iterator[str]:
    names = (display(report.model.name) for report in (base, head))
    scores = (told.number(report.summary.score) for report in (base, head))
    yield f"{' -> '.join(names)}: score {' -> '.join(scores)}"
    for status, findings in (
        ("new", changes.new),
        ("existing", changes.existing),
        ("fixed", changes.fixed),
    ):
        for finding in findings:
            yield _finding(status, finding)
    moved = [each for each in changes.layers if abs(each.log10_grad_param or 0.0) >= MOVED]
    moved.sort(key=lambda each: -abs(each.log10_grad_param or 0.0))
    plural = told.plural(len(changes.layers), "layer")
    yield f"weight gradients moved by a factor of two or more in {len(moved)} of {plural}"
    for each in moved[:SHOWN]:
        yield f"  {display(each.name)}: {each.log10_grad_param:+.3g} decades"
    if len(moved) > SHOWN:
        yield f"  and {len(moved) - SHOWN} more"
    for which, gone in (("first", changes.only_base), ("second", changes.only_head)):
        if gone:
            yield f"only in the {which}: {told.plural(len(gone), 'layer')}, {display(gone[0])} ..."


def _finding(status: str, finding: Finding) -> str:
    line = f"{SIGNS[status]} {status:8}  {finding.severity:8}  {finding.rule_id}"
    line += f"  {display(finding.title)}: {told.effect(finding)} [{finding.fingerprint}]"
    why = f" ({display(told.standing(finding) or '')})" if finding.suppression else ""
    return line + why


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradgauge diff",
        description="Compare two reports kept as JSON: findings new, existing and fixed, and how "
        "far the gradients moved. Exits with 1 where a new finding is at or above --fail-on.",
    )
    parser.add_argument("base", type=Path, help="the earlier report, as JSON")
    parser.add_argument("head", type=Path, help="the later report, as JSON")
    parser.add_argument("--policy", type=Path, help="gate as data, in YAML or JSON")
    parser.add_argument(
        "--fail-on",
        choices=("low", "medium", "high", "critical", "never"),
        help="severity of a new finding that fails the gate (the policy's, else high)",
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser
