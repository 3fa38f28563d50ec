"""A gate's policy: what fails a model, as data."""

from datetime import date
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from gradgauge.schema.report import FailOn
from gradgauge.schema.strict import Strict, refused

Told = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _day(value: Any) -> Any:
    """Only a written day: pydantic would take a number for seconds since 1970."""
    if value is None or isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise refused(f"{str(value)[:60]!r} is not a day", hint="as in 2026-12-31") from None


class Suppression(Strict):
    """One finding, by its fingerprint, that does not count, why, and until which day (included)."""

    fingerprint: Told
    reason: Told
    expires: Annotated[date | None, BeforeValidator(_day, json_schema_input_type=date | None)] = (
        None
    )


class AllowList(Strict):
    """The findings that are suppressed, each once."""

    allow: Annotated[
        tuple[Suppression, ...],
        Field(max_length=10_000),
        BeforeValidator(_as_tuple, json_schema_input_type=list[Suppression]),
    ] = ()

    @model_validator(mode="after")
    def _allows_each_once(self) -> Self:
        seen: set[str] = set()
        for i, entry in enumerate(self.allow):
            if entry.fingerprint in seen:
                field = f"allow[{i}].fingerprint"
                raise refused(f"{entry.fingerprint} is suppressed twice", field=field)
            seen.add(entry.fingerprint)
        return self


class Policy(AllowList):
    """From which severity on a finding fails the gate, and how much must have been analysed.

    `min_coverage` is the share (0 to 1) of the model's parameters that every requested engine has
    to cover before the verdict may be better than inconclusive. `allow` lists the findings that
    are suppressed.
    """

    name: Annotated[str, Field(pattern=r"^[\w.+-]{1,64}$")] = "default"
    version: Annotated[int, Field(ge=1, lt=1 << 31)] = 1
    fail_on: FailOn = "high"
    min_coverage: float = Field(default=0.95, ge=0, le=1)

    @property
    def label(self) -> str:
        """The policy as a report's gate names it, `default@1`."""
        return f"{self.name}@{self.version}"
