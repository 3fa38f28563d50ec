"""What a worker's runner is given and what it gives back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gradgauge.jobs.faults import Fault
from gradgauge.store.blobs import Received

Tell = Callable[[str, float], Awaitable[None]]


@dataclass(frozen=True)
class Upload:
    """A stored model file."""

    model_id: str
    name: str
    blob_key: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Spec:
    """A validated architecture spec."""

    name: str
    document: dict[str, Any]


@dataclass(frozen=True)
class Data:
    """A stored batch that an analysis is fed with."""

    blob_key: str


@dataclass(frozen=True)
class InspectionJob:
    """One attempt at an inspection."""

    project_id: str
    token: str
    upload: Upload


@dataclass(frozen=True)
class AnalysisJob:
    """One attempt at an analysis."""

    analysis_id: str
    project_id: str
    token: str
    source: Upload | Spec
    options: dict[str, Any]
    recommendation: dict[str, Any] | None = None
    """To be applied: the report's id, action, title and finding_ids."""
    data: Data | None = None


@dataclass(frozen=True)
class Succeeded:
    """The child's JSON: the report of an analysis, the facts of an inspection."""

    result: bytes
    verdict: str | None = None


@dataclass(frozen=True)
class Made:
    """A recommendation was applied: the model's file in the spool, and what was changed."""

    received: Received
    changes: list[str]
    function_preserving: bool
    spec: dict[str, Any] | None


@dataclass(frozen=True)
class Failed:
    """The input is at fault or over a limit: said once, not tried again."""

    fault: Fault


@dataclass(frozen=True)
class Died:
    """The child is dead and did not say why; tried again until it has died too often."""

    reason: str


Outcome = Succeeded | Failed | Died


class Runner(Protocol):
    """Runs one job in a confined child; a cancelled call has killed the child before it returns."""

    async def inspect(self, job: InspectionJob) -> Outcome:
        """Inspect the upload; `Succeeded.result` is the JSON of its facts."""

    async def analyse(self, job: AnalysisJob, tell: Tell) -> Outcome:
        """Analyse the source; `tell(stage, progress)` raises LeaseLost once it is pointless."""

    async def patch(self, job: AnalysisJob, tell: Tell) -> Made | Failed | Died:
        """Make the model of the job's recommendation; `tell` as for `analyse`."""
