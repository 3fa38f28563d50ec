"""What a second report changed against a first, and whether the second passes."""

from datetime import UTC, date, datetime
from typing import Any

from gradgauge.schema.report import Report
from gradgauge.verdict.compare import Comparison, compare
from gradgauge.verdict.judge import judge
from gradgauge.verdict.policy import Policy

Json = dict[str, Any]


def changes(
    base: Report, head: Report, policy: Policy, today: date, *, only_new: bool
) -> tuple[Comparison, Report]:
    """The comparison, its findings marked as the policy marks them; and head as judged."""
    told = compare(base, head)
    judged = judge(head, policy, today, baseline=base, only_new=only_new)
    marked = {finding.id: finding for finding in judged.findings}
    held = {
        "new": [marked[finding.id] for finding in told.new],
        "existing": [marked[finding.id] for finding in told.existing],
    }
    return told.model_copy(update=held), judged


def compare_json(base: Json, head: Json, *, only_new: bool = False) -> Json:
    """Two reports as JSON to what `POST /v1/comparisons` answers, by the policy built in.

    `base` and `head` are the reports' own ids. Raises pydantic.ValidationError where one is no
    report of this version.
    """
    before, after = Report.model_validate(base), Report.model_validate(head)
    today = datetime.now(UTC).date()
    told, judged = changes(before, after, Policy(), today, only_new=only_new)
    held = told.model_dump(mode="json")
    ids = {"base": held.pop("base_id"), "head": held.pop("head_id")}
    gate = judged.model_dump(mode="json", include={"gate": True})
    return ids | held | gate | {"verdict": judged.summary.verdict}
