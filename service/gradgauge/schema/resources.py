"""What the service's resources look like on the wire: every field always present."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from gradgauge.schema.wire import Block, Count, Fraction, Text

ModelState = Literal["inspecting", "ready", "rejected"]
AnalysisState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Dimension = Count | Text | None


class Fault(Block):
    """Why an inspection or an analysis ended badly."""

    code: Text
    """Stable between versions."""
    message: Text
    where: Text | None
    """Node, tensor or path in the spec."""
    op: Text | None
    limit: Text | None
    hint: Text | None


class Problem(Block):
    """An RFC 9457 problem document."""

    type: Text
    title: Text
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Text
    instance: Text
    code: Text
    """Stable between versions."""
    request_id: Text
    node: Text | None
    op: Text | None
    limit: Text | None
    hint: Text | None


class Caution(Block):
    """Something the inspection noticed and went on from."""

    code: Text
    message: Text


class ModelFacts(Block):
    """What a model holds, told by its inspection; a dimension is a size, a name or null."""

    name: Text
    format: Literal["onnx", "spec"]
    opset: dict[Text, Count]
    inputs: dict[Text, list[Dimension]]
    outputs: dict[Text, list[Dimension]]
    ops: dict[Text, Count]
    """Nodes by operator."""
    unsupported_ops: list[Text]
    """Operators that an analysis could not run."""
    node_count: Count
    param_count: Count
    layer_count: Count
    warnings: list[Caution]

    @classmethod
    def told(cls, raw: dict[str, Any]) -> Self:
        """Return the facts in what a child told, which is no more trusted than its model.

        The engine's own pairs (code, message) become warnings; fields that repeat what the upload
        already knows are left out.

        Raises:
            ValidationError: a field is missing or not of its type.
        """
        known = {name: raw[name] for name in cls.model_fields if name in raw}
        warnings = [
            {"code": said[0], "message": said[1]} if isinstance(said, list | tuple) else said
            for said in raw.get("warnings", [])
        ]
        unsupported = raw.get("unsupported_ops", [])
        return cls.model_validate({**known, "warnings": warnings, "unsupported_ops": unsupported})


class Model(Block):
    """An uploaded model: `facts` once it is ready, `problem` once it is rejected."""

    id: Text
    name: Text
    sha256: Text
    size_bytes: Count
    source: Text | None
    """What it was fetched by, without a query; null where it was uploaded or made here."""
    state: ModelState
    facts: ModelFacts | None
    problem: Fault | None
    created_at: datetime
    updated_at: datetime


class Architecture(Block):
    """A validated spec."""

    id: Text
    name: Text
    sha256: Text
    """Of the spec's canonical JSON."""
    spec: dict[str, Any]
    created_at: datetime


class DataFile(Block):
    """A batch for the option `data` of analyses: an .npz file."""

    id: Text
    name: Text
    sha256: Text
    size_bytes: Count
    created_at: datetime


class SpecPatch(Block):
    """What an application changes in an architecture's own words, without its comments."""

    text: Text | None
    """The changed spec in YAML; its weights are drawn from its laws, and not the model's own."""
    diff: Text | None
    """From the spec as it was, written likewise: a unified diff."""
    unsaid: list[Text]
    """Changes that a spec has no words for; there is then no text."""


class Application(Block):
    """A recommendation applied to what an analysis analysed: `model_id` once that is made."""

    analysis_id: Text
    """The analysis that recommends it."""
    recommendation_id: Text
    action: Text
    title: Text
    finding_ids: list[Text]
    model_id: Text | None
    changes: list[Text]
    """What was changed where, as the model's own metadata says (`gradgauge.patch`, behind what
    `gradgauge.reinitialized` says where the weights were drawn anew)."""
    function_preserving: bool | None
    spec: SpecPatch | None
    """Null of a model, and until it is made."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, told: Any) -> Any:
        """One that was kept before there was `spec` has none."""
        return {"spec": None} | told if isinstance(told, dict) else told


class Analysis(Block):
    """An analysis: `error` once it has failed; its report is read apart once it has succeeded."""

    id: Text
    name: Text
    model_id: Text | None
    """Null for an architecture, and where the model was deleted since."""
    architecture_id: Text | None
    options: dict[str, Any]
    state: AnalysisState
    stage: Text | None
    """What is being done, such as `analytic` or `sampled`."""
    progress: Fraction
    cached: bool
    """Whether the report is an earlier analysis's."""
    application: Application | None
    """The recommendation it applies: it ends with a model then, and has no report."""
    verdict: Literal["pass", "warn", "fail", "inconclusive"] | None
    error: Fault | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class AnalysisEvent(Block):
    """A step of an analysis, as sent to those who watch it; `id` resumes after it."""

    id: Count
    analysis_id: Text
    state: AnalysisState
    stage: Text | None
    progress: Fraction
    created_at: datetime


class ModelPage(Block):
    """A page of models, newest first; `next_cursor` is null on the last."""

    items: list[Model]
    next_cursor: Text | None


class DataFilePage(Block):
    """A page of data files, newest first; `next_cursor` is null on the last."""

    items: list[DataFile]
    next_cursor: Text | None


class ArchitecturePage(Block):
    """A page of architectures, newest first; `next_cursor` is null on the last."""

    items: list[Architecture]
    next_cursor: Text | None


class AnalysisPage(Block):
    """A page of analyses, newest first; `next_cursor` is null on the last."""

    items: list[Analysis]
    next_cursor: Text | None
