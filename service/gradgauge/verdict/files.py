"""The files that a command line judges by, read before anything is analysed."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from gradgauge.errors import GradgaugeError, InvalidOptions
from gradgauge.schema.report import Report
from gradgauge.verdict import read
from gradgauge.verdict.judge import judge
from gradgauge.verdict.policy import Policy

Json = dict[str, Any]
Held = TypeVar("Held")
_LARGEST = 1 << 30


def judge_by(asked: Json) -> Json:
    """{"judge": a function from report to report, as JSON} or {"problem": ...} with exit 2.

    `asked` may hold paths under `policy`, `suppressions` and `baseline`, `fail_on` and
    `min_coverage`, which outrank the policy's, and `only_new`.
    """
    try:
        policy = _policy(asked)
        path = asked.get("baseline")
        baseline = read_file(path, read.read_report) if path else None
    except GradgaugeError as error:
        return {"problem": error.as_dict() | {"exit": 2}}
    return {"judge": _judgement(policy, baseline, only_new=bool(asked.get("only_new")))}


def _judgement(
    policy: Policy, baseline: Report | None, *, only_new: bool
) -> Callable[[Json], Json]:
    def judged(report: Json) -> Json:
        today = datetime.now(UTC).date()
        held = Report.model_validate(report)
        told = judge(held, policy, today, baseline=baseline, only_new=only_new)
        return told.model_dump(mode="json")

    return judged


def _policy(asked: Json) -> Policy:
    path = asked.get("policy")
    policy = read_file(path, read.read_policy) if path else Policy()
    more = asked.get("suppressions")
    if more:
        policy = read.joined(policy, read_file(more, read.read_suppressions))
    given = {key: asked[key] for key in ("fail_on", "min_coverage") if asked.get(key) is not None}
    if not given:
        return policy
    name = f"{policy.name}+command-line" if path else "command-line"
    return Policy.model_validate(dict(policy) | given | {"name": name})


def read_file(path: str, parse: Callable[[bytes], Held]) -> Held:
    """What `parse` makes of a file; its refusals name the file.

    Raises:
        InvalidOptions: the file cannot be read, or `parse` refuses it.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(_LARGEST)
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise InvalidOptions("unreadable_file", message) from error
    try:
        return parse(text)
    except GradgaugeError as error:
        raise InvalidOptions(
            error.code, f"{path}: {error.message}", where=error.where, hint=error.hint
        ) from error
