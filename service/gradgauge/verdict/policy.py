"""A gate's policy: what fails a model, as data."""

from pydantic import BaseModel, ConfigDict, Field

from gradgauge.schema.report import FailOn


class Policy(BaseModel):
    """From which severity on a finding fails the gate, and how much must have been analysed.

    `min_coverage` is the share (0 to 1) of the model's parameters that every requested engine has
    to cover before the verdict may be better than inconclusive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "default"
    version: int = 1
    fail_on: FailOn = "high"
    min_coverage: float = Field(default=0.95, ge=0, le=1)

    @property
    def label(self) -> str:
        """The policy as a report's gate names it, `default@1`."""
        return f"{self.name}@{self.version}"
