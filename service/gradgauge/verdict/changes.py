"""What a second report changed against a first, and whether the second passes."""

from datetime import UTC, date, datetime
from typing import Any

from gradgauge.errors import GradgaugeError
from gradgauge.schema.report import Report
from gradgauge.verdict.compare import Comparison, compare
from gradgauge.verdict.files import Rules, as_asked
from gradgauge.verdict.judge import judge
from gradgauge.verdict.policy import Policy

Json = dict[str, Any]


class PairRequest(Rules):
    """Two reports of one network, and by which rules the later one is judged."""

    base: Report
    head: Report


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


def compared(asked: PairRequest) -> tuple[Comparison, Report]:
    """What head changed, and head as judged; raises InvalidOptions as `Rules.decided`."""
    today = datetime.now(UTC).date()
    return changes(asked.base, asked.head, asked.decided(), today, only_new=asked.only_new)


def compare_json(base: Json, head: Json, **rules: Any) -> Json:
    """Two reports and rules as JSON to what `POST /v1/reports:compare` answers.

    {"problem": ...} with exit 2 where one of them is none.
    """
    try:
        asked = as_asked(PairRequest, {"base": base, "head": head} | rules)
        told, after = compared(asked)
    except GradgaugeError as error:
        return {"problem": error.as_dict() | {"exit": 2}}
    held = told.model_dump(mode="json")
    ids = {"base": held.pop("base_id"), "head": held.pop("head_id")}
    gate = after.model_dump(mode="json", include={"gate": True})
    return ids | held | gate | {"verdict": after.summary.verdict}
