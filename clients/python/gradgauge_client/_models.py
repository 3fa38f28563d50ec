"""The service's resources, generated from clients/openapi.json: do not edit."""


from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict


class AgreementBlock(BaseModel):
    """How far the two engines agree on a layer."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    delta_log10: float | None
    """Decades: analytic less sampled."""
    z: float | None
    """The difference in units of its own standard error."""
    status: Literal["agree", "disagree", "not_comparable"]
    explanation: str | None


class AnalysisEvent(BaseModel):
    """A step of an analysis, as sent to those who watch it; `id` resumes after it."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: int
    analysis_id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    stage: str | None
    progress: float
    created_at: AwareDatetime


class AnalyticBlock(BaseModel):
    """The analytic engine's word on a layer: moments propagated, nothing run."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    method: Literal["mean_field", "exact_moments", "probed", "not_supported"]
    forward_rms: float | None
    """RMS of the layer's output, in activation units."""
    forward_gain: float | None
    """Output RMS over input RMS; 1 preserves."""
    backward_gain: float | None
    """Gradient RMS at the input over that at the output, this layer alone; 1 preserves."""
    log10_grad_act: float | None
    """Decades: RMS of the gradient at the layer's output; 0 is 1 at the network's output."""
    log10_grad_param: float | None
    """Decades: RMS of the gradient of the layer's largest parameter, per input."""
    log10_grad_ratio: float | None
    """Decades: parameter gradient RMS over parameter RMS."""
    band_decades: float | None
    """Decades: how far finite width is expected to scatter around the mean."""
    chi: float | None
    """Squared gain of a small perturbation through the layer; 1 is critical."""
    depth_scale: float | None
    """Layers over which a perturbation fades by e; null where chi >= 1."""
    sigma_max: float | None
    sigma_min: float | None
    stable_rank: float | None
    assumptions: list[str]


class Architecture(BaseModel):
    """A validated spec."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    name: str
    sha256: str
    """Of the spec's canonical JSON."""
    spec: dict[str, Any]
    created_at: AwareDatetime


class CategoryProbabilities(BaseModel):
    """What training will do; the four sum to 1."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    trains: float
    vanishing: float
    exploding: float
    other: float


class Caution(BaseModel):
    """Something the inspection noticed and went on from."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    code: str
    message: str


class Check(BaseModel):
    """A rule and what came of it; `reason` is null only where it passed."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    rule_id: str
    title: str
    status: Literal["passed", "failed", "not_applicable", "not_run"]
    reason: str | None


class Coverage(BaseModel):
    """How much of the model each engine reached."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    nodes_total: int
    nodes_analytic: int
    nodes_sampled: int
    params_total: int
    params_covered: int
    """Parameters that every engine asked for covers."""
    unsupported_ops: dict[str, int]


class Evidence(BaseModel):
    """One number a finding stands on: `value comparator threshold` holds."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    metric: str
    value: float | None
    threshold: float | None
    comparator: Literal["<", "<=", ">", ">=", "==", "!="]
    source: Literal["analytic", "sampled"]
    unit: str


class Expected(BaseModel):
    """What a remedy should do to a metric."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    metric: str
    before: float | None
    after: float | None
    unit: str


class Fault(BaseModel):
    """Why an inspection or an analysis ended badly."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    code: str
    """Stable between versions."""
    message: str
    where: str | None
    """Node, tensor or path in the spec."""
    op: str | None
    limit: str | None
    hint: str | None


class Finding(BaseModel):
    """Something wrong, told once: where it starts, and which layers it reaches."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    rule_id: str
    title: str
    message: str
    severity: Literal["none", "low", "medium", "high", "critical"]
    category: Literal["vanishing", "exploding", "saturation", "dead_units", "rank_collapse", "symmetry", "shattered", "precision_underflow", "precision_overflow", "attention_entropy", "initialisation", "ill_posed", "disagreement", "not_analysed"]
    confidence: float
    fingerprint: str
    """Same over re-runs: it knows the rule, the category and the origin's scope, no metric."""
    origins: list[str]
    affected: list[str]
    affected_count: int
    evidence: list[Evidence]
    status: Literal["new", "existing", "fixed", "suppressed"]
    suppression: str | None
    recommendation_ids: list[str]


class Gate(BaseModel):
    """Whether the policy lets the model through; what follows `inconclusive: ` says why not."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    policy: str
    passed: bool
    fail_on: Literal["low", "medium", "high", "critical", "never"]
    violating_findings: list[str]
    reason: str


class Interval(BaseModel):
    """A confidence interval, in the unit of the quantity it belongs to."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    low: float
    high: float
    level: float
    """Share of repetitions in which the interval holds the true value."""
    method: str


class MeasurementBlock(BaseModel):
    """A number that has no field of its own."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    source: Literal["analytic", "sampled"]
    note: str | None


class ModelBlock(BaseModel):
    """What was analysed."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    name: str
    format: Literal["onnx", "spec"]
    size_bytes: int | None
    node_count: int
    param_count: int


class ModelFacts(BaseModel):
    """What a model holds, told by its inspection; a dimension is a size, a name or null."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    name: str
    format: Literal["onnx", "spec"]
    opset: dict[str, int]
    inputs: dict[str, list[int | str | None]]
    outputs: dict[str, list[int | str | None]]
    ops: dict[str, int]
    """Nodes by operator."""
    unsupported_ops: list[str]
    """Operators that an analysis could not run."""
    node_count: int
    param_count: int
    layer_count: int
    warnings: list[Caution]


class Provenance(BaseModel):
    """What it takes to get the same report again."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    service_version: str
    analysis_config_sha256: str
    model_sha256: str
    ir_version: int | None
    opset: dict[str, int]
    versions: dict[str, str]
    device: str
    dtype: str
    deterministic: bool
    seeds: list[int]
    started_at: AwareDatetime
    finished_at: AwareDatetime
    stage_ms: dict[str, float]


class Quantiles(BaseModel):
    """Quantiles of a sample; where it has one value only q50 is set."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    q05: float | None
    q25: float | None
    q50: float | None
    q75: float | None
    q95: float | None


class RiskBlock(BaseModel):
    """How far to worry about a layer, and whether the trouble starts here or passes through."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    score: float
    severity: Literal["none", "low", "medium", "high", "critical"]
    category: Literal["vanishing", "exploding", "saturation", "dead_units", "rank_collapse", "symmetry", "shattered", "precision_underflow", "precision_overflow", "attention_entropy", "initialisation", "ill_posed", "disagreement", "not_analysed"] | None
    role: Literal["origin", "affected", "none"]
    confidence: float


class SampledBlock(BaseModel):
    """
    The sampled engine's word on a layer: run and differentiated.

    `status` says whether there is one: `not_supported` where the graph holds an op the executor
    lacks, `not_run` where the engine was not asked; every quantity is then null and `n` is 0.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    status: Literal["measured", "not_supported", "not_run"]
    n: int
    """Inputs the gradients were measured on."""
    seeds: list[int]
    loss: str | None
    input_kind: str | None
    log10_grad_act: Quantiles | None
    """Decades: RMS over the elements of one input's gradient at the output of the layer's op."""
    log10_grad_act_ci: Interval | None
    log10_grad_param: Quantiles | None
    """Decades: RMS of the gradient of the layer's largest parameter."""
    log10_grad_param_ci: Interval | None
    forward_rms: float | None
    """RMS of the layer's output, in activation units."""
    input_correlation: float | None
    """Mean pairwise cosine of the layer's outputs across inputs; 1 is collapsed."""
    cosine_between_samples: float | None
    """Mean cosine between the parameter gradients of two samples."""
    dead_fraction: float | None
    saturated_fraction: float | None
    underflow: dict[Literal["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"], float]
    """Share of the gradient that the number format would flush to zero."""
    overflow: dict[Literal["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"], float]
    """Share of the gradient beyond the number format's largest value."""
    nonfinite_fraction: float | None
    zero_gradient: bool | None
    """The gradient is exactly zero, so that its log10 is null."""


class SeriesBlock(BaseModel):
    """A curve: x, y and its interval are lists of one length."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    name: str
    unit: str
    """Unit of y, low and high."""
    x: list[float]
    y: list[float | None]
    low: list[float | None]
    high: list[float | None]


class SeverityCounts(BaseModel):
    """Findings by severity."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    critical: int
    high: int
    medium: int
    low: int
    none: int


class Snippet(BaseModel):
    """A remedy as code."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    framework: str
    code: str


class Untrainable(BaseModel):
    """Probability that training at learning rate `lr` fails; `lr` null means at any usual rate."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    p: float
    low: float
    high: float
    lr: float | None
    calibration: str


class UntrainableByOptimizer(BaseModel):
    """The probability for each optimiser."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    sgd: Untrainable
    adam: Untrainable


class Verified(BaseModel):
    """What a remedy did to a metric on a copy of the model, measured."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    metric: str
    before: float | None
    after: float | None
    unit: str
    ci_after: Interval | None


class Warning(BaseModel):
    """Something the reader should know before believing a number."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    code: str
    message: str
    layer_ids: list[str]


class WeightsBlock(BaseModel):
    """Whether the weights look drawn or trained, and what that is judged by."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    state: Literal["fresh", "trained", "unknown"]
    judged_by: str


class Analysis(BaseModel):
    """An analysis: `error` once it has failed; its report is read apart once it has succeeded."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    name: str
    model_id: str | None
    """Null for an architecture, and where the model was deleted since."""
    architecture_id: str | None
    options: dict[str, Any]
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    stage: str | None
    """What is being done, such as `analytic` or `sampled`."""
    progress: float
    cached: bool
    """Whether the report is an earlier analysis's."""
    verdict: Literal["pass", "warn", "fail", "inconclusive"] | None
    error: Fault | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None


class AnalysisPage(BaseModel):
    """A page of analyses, newest first; `next_cursor` is null on the last."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[Analysis]
    next_cursor: str | None


class LayerBlock(BaseModel):
    """One layer: its identity, and everything said of it."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    name: str
    scope: str
    op: str
    nodes: list[str]
    params: list[str]
    depth: int
    """Position along the longest path from the inputs."""
    param_count: int
    shape_in: list[int | str | None] | None
    shape_out: list[int | str | None] | None
    repeat_group: str | None
    finding_ids: list[str]
    analytic: AnalyticBlock
    sampled: SampledBlock
    agreement: AgreementBlock
    risk: RiskBlock
    measurements: list[MeasurementBlock]


class Model(BaseModel):
    """An uploaded model: `facts` once it is ready, `problem` once it is rejected."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    name: str
    sha256: str
    size_bytes: int
    state: Literal["inspecting", "ready", "rejected"]
    facts: ModelFacts | None
    problem: Fault | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class Recommendation(BaseModel):
    """A remedy, its price, and what it did when it was tried."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    action: str
    title: str
    targets: list[str]
    finding_ids: list[str]
    rank: int
    rationale: str
    cost: Literal["config", "init", "architecture", "retrain"]
    function_preserving: bool
    expected: list[Expected]
    verification: Literal["verified", "refuted", "not_run", "not_verifiable"]
    verified: list[Verified]
    side_effects: list[str]
    patched_model_id: str | None
    snippets: list[Snippet]
    references: list[str]


class Summary(BaseModel):
    """The report in one glance."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    score: float | None
    """0 to 100, 100 is healthy; null where too little was analysed to give one."""
    verdict: Literal["pass", "warn", "fail", "inconclusive"]
    headline: str
    """One sentence a person can act on."""
    severity_counts: SeverityCounts
    probability_untrainable: UntrainableByOptimizer | None
    category_probabilities: CategoryProbabilities | None
    spread_decades: float | None
    """Decades between the largest and the smallest gradient of the network."""
    worst_layer: str | None
    agreement_fraction: float | None
    """Share of the comparable layers on which the two engines agree."""


class Report(BaseModel):
    """Everything gradgauge says of one model."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    schema_version: Literal["1.0"]
    id: str
    object: Literal["report"]
    model: ModelBlock
    weights: WeightsBlock
    summary: Summary
    gate: Gate | None
    findings: list[Finding]
    recommendations: list[Recommendation]
    checks: list[Check]
    layers: list[LayerBlock]
    graph_url: str | None
    coverage: Coverage
    warnings: list[Warning]
    measurements: list[MeasurementBlock]
    series: list[SeriesBlock]
    provenance: Provenance
    compared_to: str | None