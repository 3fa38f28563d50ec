"""A gate's policy: what fails a model, as data."""

from datetime import date
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from gradgauge.schema.report import FailOn

Told = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class Suppression(BaseModel):
    """One finding, by its fingerprint, that does not count, why, and until which day (included)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: Told
    reason: Told
    expires: date | None = None


class Policy(BaseModel):
    """From which severity on a finding fails the gate, and how much must have been analysed.

    `min_coverage` is the share (0 to 1) of the model's parameters that every requested engine has
    to cover before the verdict may be better than inconclusive. `allow` lists the findings that
    are suppressed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "default"
    version: int = 1
    fail_on: FailOn = "high"
    min_coverage: float = Field(default=0.95, ge=0, le=1)
    allow: tuple[Suppression, ...] = ()

    @model_validator(mode="after")
    def _allows_each_once(self) -> Self:
        seen: set[str] = set()
        for i, entry in enumerate(self.allow):
            if entry.fingerprint in seen:
                raise ValueError(f"allow[{i}]: {entry.fingerprint} is suppressed twice")
            seen.add(entry.fingerprint)
        return self

    @property
    def label(self) -> str:
        """The policy as a report's gate names it, `default@1`."""
        return f"{self.name}@{self.version}"
