"""Rules as somebody keeps them in files, and the judge that they make."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from gradgauge.errors import GradgaugeError, InvalidOptions
from gradgauge.schema.report import FailOn, Report
from gradgauge.schema.strict import Strict, fault
from gradgauge.verdict import read
from gradgauge.verdict.judge import judge
from gradgauge.verdict.policy import Policy

Json = dict[str, Any]
Asked = TypeVar("Asked", bound="Rules")
Held = TypeVar("Held")
Written = Annotated[str | None, Field(max_length=1 << 20)]


class Rules(Strict):
    """What a report is judged by; where none of it is said, by the gate that is built in."""

    policy: Written = Field(default=None, description="A gate as data, as written: YAML or JSON.")
    suppressions: Written = Field(
        default=None, description="`allow` and its list, beside the policy's: YAML or JSON."
    )
    fail_on: FailOn | None = Field(default=None, description="Outranks the policy's.")
    min_coverage: float | None = Field(
        default=None, ge=0, le=1, description="Outranks the policy's."
    )
    only_new: bool = Field(
        default=False, description="Findings that the earlier report had too do not count."
    )

    def decided(self) -> Policy:
        """The policy these make.

        Raises:
            InvalidOptions: a text is none; `where` begins with the field it came in.
        """
        policy = Policy()
        if self.policy is not None:
            policy = _read("policy", read.read_policy, self.policy)
        if self.suppressions is not None:
            held = policy
            policy = _read(
                "suppressions",
                lambda text: read.joined(held, read.read_suppressions(text)),
                self.suppressions,
            )
        told = {"fail_on": self.fail_on, "min_coverage": self.min_coverage}
        given = {key: value for key, value in told.items() if value is not None}
        if not given:
            return policy
        name = "command-line" if self.policy is None else f"{policy.name}+command-line"
        return Policy.model_validate(dict(policy) | given | {"name": name})


class Judging(Rules):
    """Rules, and the earlier report that findings are held against."""

    baseline: Report | None = None


class JudgementRequest(Judging):
    """A report, and what it is judged by."""

    report: Report


def judged(report: Report, asked: Judging, policy: Policy) -> Report:
    """The report judged by the policy that `asked` makes, against its baseline."""
    today = datetime.now(UTC).date()
    return judge(report, policy, today, baseline=asked.baseline, only_new=asked.only_new)


def judge_by(asked: Json) -> Json:
    """{"judge": a function from report to report, as JSON} or {"problem": ...} with exit 2."""
    try:
        rules = as_asked(Judging, asked)
        policy = rules.decided()
    except GradgaugeError as error:
        return {"problem": error.as_dict() | {"exit": 2}}
    return {"judge": lambda told: _judged_json(told, rules, policy)}


def _judged_json(report: Json, rules: Judging, policy: Policy) -> Json:
    return judged(Report.model_validate(report), rules, policy).model_dump(mode="json")


def as_asked(kind: type[Asked], told: Json) -> Asked:
    """Rules and reports out of plain JSON; raises InvalidOptions where they are none."""
    try:
        return kind.model_validate(told)
    except ValidationError as error:
        said = fault(error)
        raise InvalidOptions(
            "invalid_report",
            f"it is not a report of this version: {said.message}",
            where=said.path or None,
            hint="keep the JSON that `gradgauge check --format json` writes, or make it again",
        ) from error


def _read(field: str, parse: Callable[[str], Held], text: str) -> Held:
    try:
        return parse(text)
    except GradgaugeError as error:
        where = f"{field}.{error.where}" if error.where else field
        raise InvalidOptions(error.code, error.message, where=where, hint=error.hint) from error
