"""The service's resources, generated from clients/openapi.json: do not edit."""


from datetime import date
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
    explanation: str | None
    status: Literal["agree", "disagree", "not_comparable"]
    z: float | None
    """The difference in units of its own standard error."""


class AllowedFinding(BaseModel):
    """A finding that does not count."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    expires: date | None
    fingerprint: str
    reason: str


class AnalysisEvent(BaseModel):
    """A step of an analysis, as sent to those who watch it; `id` resumes after it."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    analysis_id: str
    created_at: AwareDatetime
    id: int
    progress: float
    stage: str | None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]


class AnalyticBlock(BaseModel):
    """The analytic engine's word on a layer: moments propagated, nothing run."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    assumptions: list[str]
    backward_gain: float | None
    """Gradient RMS at the input over that at the output, this layer alone; 1 preserves."""
    band_decades: float | None
    """Decades: how far finite width is expected to scatter around the mean."""
    chi: float | None
    """Squared gain of a small perturbation through the layer; 1 is critical."""
    depth_scale: float | None
    """Layers over which a perturbation fades by e; null where chi >= 1."""
    forward_gain: float | None
    """Output RMS over input RMS; 1 preserves."""
    forward_rms: float | None
    """RMS of the layer's output, in activation units."""
    log10_grad_act: float | None
    """Decades: RMS of the gradient at the layer's output; 0 is 1 at the network's output."""
    log10_grad_param: float | None
    """Decades: RMS of the gradient of the layer's largest parameter, per input."""
    log10_grad_ratio: float | None
    """Decades: parameter gradient RMS over parameter RMS."""
    method: Literal["mean_field", "exact_moments", "probed", "not_supported"]
    sigma_max: float | None
    sigma_min: float | None
    stable_rank: float | None


class ApiKey(BaseModel):
    """A key of the project; its text is told once, when it is made."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    id: str
    last_used_at: AwareDatetime | None
    """To the minute."""
    principal: str
    revoked_at: AwareDatetime | None
    scope: Literal["read", "write", "admin"]


class ApiKeyPage(BaseModel):
    """A page of keys by id; `next_cursor` is null on the last."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[ApiKey]
    next_cursor: str | None


class Architecture(BaseModel):
    """A validated spec."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    id: str
    name: str
    sha256: str
    """Of the spec's canonical JSON."""
    spec: dict[str, Any]


class CategoryProbabilities(BaseModel):
    """What training will do; the four sum to 1."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    exploding: float
    other: float
    trains: float
    vanishing: float


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
    reason: str | None
    rule_id: str
    status: Literal["passed", "failed", "not_applicable", "not_run"]
    title: str


class Columns(BaseModel):
    """As many values in every column as there are layers, in the layers' order."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    columns: dict[str, list[Any]]
    """By the field's path in a layer, such as `sampled.log10_grad_act.q50`."""
    count: int


class Coverage(BaseModel):
    """How much of the model each engine reached."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    nodes_analytic: int
    nodes_sampled: int
    nodes_total: int
    params_covered: int
    """Parameters that every engine asked for covers."""
    params_total: int
    unsupported_ops: dict[str, int]


class DataFile(BaseModel):
    """A batch for the option `data` of analyses: an .npz file."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    id: str
    name: str
    sha256: str
    size_bytes: int


class DataFilePage(BaseModel):
    """A page of data files, newest first; `next_cursor` is null on the last."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[DataFile]
    next_cursor: str | None


class Evidence(BaseModel):
    """One number a finding stands on: `value comparator threshold` holds."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    comparator: Literal["<", "<=", ">", ">=", "==", "!="]
    metric: str
    source: Literal["analytic", "sampled"]
    threshold: float | None
    unit: str
    value: float | None


class Expected(BaseModel):
    """What a remedy should do to a metric."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    after: float | None
    before: float | None
    metric: str
    unit: str


class Fault(BaseModel):
    """Why an inspection or an analysis ended badly."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    code: str
    """Stable between versions."""
    hint: str | None
    limit: str | None
    message: str
    op: str | None
    where: str | None
    """Node, tensor or path in the spec."""


class Finding(BaseModel):
    """Something wrong, told once: where it starts, and which layers it reaches."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    affected: list[str]
    affected_count: int
    category: Literal["vanishing", "exploding", "saturation", "dead_units", "rank_collapse", "symmetry", "shattered", "precision_underflow", "precision_overflow", "attention_entropy", "initialisation", "ill_posed", "disagreement", "not_analysed"]
    confidence: float
    evidence: list[Evidence]
    fingerprint: str
    """Same over re-runs: it knows the rule, the category and the origin's scope, no metric."""
    id: str
    message: str
    origins: list[str]
    recommendation_ids: list[str]
    rule_id: str
    severity: Literal["none", "low", "medium", "high", "critical"]
    status: Literal["new", "existing", "fixed", "suppressed"]
    suppression: str | None
    title: str


class Gate(BaseModel):
    """Whether the policy lets the model through; what follows `inconclusive: ` says why not."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    fail_on: Literal["low", "medium", "high", "critical", "never"]
    passed: bool
    policy: str
    reason: str
    violating_findings: list[str]


class GraphEdge(BaseModel):
    """`target` reads what `source` makes, directly or through nodes that only move it."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    source: str
    target: str


class GraphNode(BaseModel):
    """A layer as a node of the graph, with what colours it."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    depth: int
    id: str
    name: str
    op: str
    repeat_group: str | None
    role: Literal["origin", "affected", "none"]
    scope: str
    score: float
    severity: Literal["none", "low", "medium", "high", "critical"]


class Interval(BaseModel):
    """A confidence interval, in the unit of the quantity it belongs to."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    high: float
    level: float
    """Share of repetitions in which the interval holds the true value."""
    low: float
    method: str


class LayerDelta(BaseModel):
    """How far the gradients at one layer moved from base to head, in decades."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    base_id: str
    head_id: str
    log10_grad_act: float | None
    log10_grad_param: float | None
    name: str


class LayerGraph(BaseModel):
    """The layers in topological order and which of them reads which."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    edges: list[GraphEdge]
    nodes: list[GraphNode]


class LayerSpectrum(BaseModel):
    """Singular values of one layer's weight."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    name: str
    sigma_max: float | None
    sigma_min: float | None
    stable_rank: float | None


class MeasurementBlock(BaseModel):
    """A number that has no field of its own."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    high: float | None
    low: float | None
    name: str
    note: str | None
    source: Literal["analytic", "sampled"]
    unit: str
    value: float | None


class ModelBlock(BaseModel):
    """What was analysed."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    format: Literal["onnx", "spec"]
    id: str
    name: str
    node_count: int
    param_count: int
    size_bytes: int | None


class ModelFacts(BaseModel):
    """What a model holds, told by its inspection; a dimension is a size, a name or null."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    format: Literal["onnx", "spec"]
    inputs: dict[str, list[int | str | None]]
    layer_count: int
    name: str
    node_count: int
    ops: dict[str, int]
    """Nodes by operator."""
    opset: dict[str, int]
    outputs: dict[str, list[int | str | None]]
    param_count: int
    unsupported_ops: list[str]
    """Operators that an analysis could not run."""
    warnings: list[Caution]


class NewApiKey(BaseModel):
    """A key and its text, which is told this once."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    id: str
    key: str
    last_used_at: AwareDatetime | None
    """To the minute."""
    principal: str
    revoked_at: AwareDatetime | None
    scope: Literal["read", "write", "admin"]


class NewWebhook(BaseModel):
    """A webhook and the secret that signs its messages, which is told this once."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    id: str
    secret: str
    url: str


class OpCapability(BaseModel):
    """An operator the engines run; each row of `since` serves opsets up to the next."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    domain: str
    """Empty for ONNX's own."""
    kind: str
    op: str
    since: list[int]


class Part(BaseModel):
    """A part that has come whole."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    number: int
    sha256: str
    size_bytes: int


class PartedUpload(BaseModel):
    """An upload in parts; what is in `parts` need not be sent again."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    expires_at: AwareDatetime
    """When it is given up, unless something comes before."""
    id: str
    model_id: str | None
    """What it has become."""
    name: str
    parts: list[Part]
    received_bytes: int
    sha256: str | None
    size_bytes: int | None
    state: str
    """open, completing or completed."""


class Provenance(BaseModel):
    """What it takes to get the same report again."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    analysis_config_sha256: str
    deterministic: bool
    device: str
    dtype: str
    finished_at: AwareDatetime
    ir_version: int | None
    model_sha256: str
    opset: dict[str, int]
    seeds: list[int]
    service_version: str
    stage_ms: dict[str, float]
    started_at: AwareDatetime
    versions: dict[str, str]


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
    category: Literal["vanishing", "exploding", "saturation", "dead_units", "rank_collapse", "symmetry", "shattered", "precision_underflow", "precision_overflow", "attention_entropy", "initialisation", "ill_posed", "disagreement", "not_analysed"] | None
    confidence: float
    role: Literal["origin", "affected", "none"]
    score: float
    severity: Literal["none", "low", "medium", "high", "critical"]


class Rule(BaseModel):
    """A rule and its page."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    page: str
    """Cause, picture, evidence, remedies and references, in Markdown."""
    title: str


class RuleTitle(BaseModel):
    """A rule and what it finds, in a few words."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    id: str
    title: str


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
    cosine_between_samples: float | None
    """Mean cosine between the parameter gradients of two samples."""
    dead_fraction: float | None
    forward_rms: float | None
    """RMS of the layer's output, in activation units."""
    input_correlation: float | None
    """Mean pairwise cosine of the layer's outputs across inputs; 1 is collapsed."""
    input_kind: str | None
    log10_grad_act: Quantiles | None
    """Decades: RMS over the elements of one input's gradient at the output of the layer's op."""
    log10_grad_act_ci: Interval | None
    log10_grad_param: Quantiles | None
    """Decades: RMS of the gradient of the layer's largest parameter."""
    log10_grad_param_ci: Interval | None
    loss: str | None
    n: int
    """Inputs the gradients were measured on."""
    nonfinite_fraction: float | None
    overflow: dict[Literal["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"], float]
    """Share of the activations beyond the number format's largest value."""
    saturated_fraction: float | None
    seeds: list[int]
    status: Literal["measured", "not_supported", "not_run"]
    underflow: dict[Literal["fp16", "bf16", "fp8_e4m3", "fp8_e5m2"], float]
    """Share of the gradient that the number format would flush to zero."""
    zero_gradient: bool | None
    """The gradient is exactly zero, so that its log10 is null."""


class SeriesBlock(BaseModel):
    """A curve: x, y and its interval are lists of one length."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    high: list[float | None]
    low: list[float | None]
    name: str
    unit: str
    """Unit of y, low and high."""
    x: list[float]
    y: list[float | None]


class SeverityCounts(BaseModel):
    """Findings by severity."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    critical: int
    high: int
    low: int
    medium: int
    none: int


class Snippet(BaseModel):
    """A remedy as code."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    code: str
    framework: str


class SpecPatch(BaseModel):
    """What an application changes in an architecture's own words, without its comments."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    diff: str | None
    """From the spec as it was, written likewise: a unified diff."""
    text: str | None
    """The changed spec in YAML; its weights are drawn from its laws, and not the model's own."""
    unsaid: list[str]
    """Changes that a spec has no words for; there is then no text."""


class Spectra(BaseModel):
    """What the report holds of spectra and curves; `layers` are those with a singular value."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    layers: list[LayerSpectrum]
    measurements: list[MeasurementBlock]
    series: list[SeriesBlock]


class StoredPolicy(BaseModel):
    """A policy; `version` grows with every change, and a gate names both, `release@3`."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    allow: list[AllowedFinding]
    created_at: AwareDatetime
    fail_on: Literal["low", "medium", "high", "critical", "never"]
    min_coverage: float
    name: str
    updated_at: AwareDatetime
    version: int


class Untrainable(BaseModel):
    """Probability that training at learning rate `lr` fails; `lr` null means at any usual rate."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    base_rate: float
    """Share of failures among networks like this one that `p` assumes: the fit's, or as asked."""
    calibration: str
    confidence: float
    """1 inside the range of the networks the calibration was fitted on, falling with distance."""
    high: float
    low: float
    lr: float | None
    p: float


class UntrainableByOptimizer(BaseModel):
    """The probability for each optimiser."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    adam: Untrainable
    sgd: Untrainable


class Verified(BaseModel):
    """What a remedy did to a metric on a copy of the model, measured."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    after: float | None
    before: float | None
    ci_after: Interval | None
    metric: str
    unit: str


class Versions(BaseModel):
    """Of the service and of the formats it reads and writes."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    report_schema: str
    service: str
    spec: int


class Warning(BaseModel):
    """Something the reader should know before believing a number."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    code: str
    layer_ids: list[str]
    message: str


class Webhook(BaseModel):
    """An address that is told of every analysis of the project that ends."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    id: str
    url: str


class WebhookPage(BaseModel):
    """A page of webhooks, newest first; `next_cursor` is null on the last."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[Webhook]
    next_cursor: str | None


class WeightsBlock(BaseModel):
    """Whether the weights look drawn or trained, and what that is judged by."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    judged_by: str
    state: Literal["fresh", "trained", "unknown"]


class Application(BaseModel):
    """A recommendation applied to what an analysis analysed: `model_id` once that is made."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    action: str
    analysis_id: str
    """The analysis that recommends it."""
    changes: list[str]
    """
    What was changed where, as the model's own metadata says (`gradgauge.patch`, behind what
    `gradgauge.reinitialized` says where the weights were drawn anew).
    """
    finding_ids: list[str]
    function_preserving: bool | None
    model_id: str | None
    recommendation_id: str
    spec: SpecPatch | None
    """Null of a model, and until it is made."""
    title: str


class Capabilities(BaseModel):
    """What can be asked of this service."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    engines: list[str]
    limits: dict[str, float]
    """Bytes, seconds and counts by name; what goes past one is refused with `limit` naming it."""
    ops: list[OpCapability]
    profiles: list[str]
    report_formats: list[str]
    target_dtypes: list[str]
    versions: Versions
    workers: int
    """Worker processes that have told of themselves lately."""


class Comparison(BaseModel):
    """
    What `head` changed, and whether it passes.

    `new` and `existing` are head's findings, `fixed` are base's; `layers` are those whose name is
    in both reports exactly once, `only_base` and `only_head` name the others.
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    base: str
    existing: list[Finding]
    fixed: list[Finding]
    gate: Gate
    head: str
    layers: list[LayerDelta]
    new: list[Finding]
    only_base: list[str]
    only_head: list[str]
    verdict: Literal["pass", "warn", "fail", "inconclusive"]


class Evaluation(BaseModel):
    """A report judged by a policy: its findings as the policy marks them, verdict and gate."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    analysis_id: str
    findings: list[Finding]
    gate: Gate
    verdict: Literal["pass", "warn", "fail", "inconclusive"]


class LayerBlock(BaseModel):
    """One layer: its identity, and everything said of it."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    agreement: AgreementBlock
    analytic: AnalyticBlock
    depth: int
    """Position along the longest path from the inputs."""
    finding_ids: list[str]
    id: str
    measurements: list[MeasurementBlock]
    name: str
    nodes: list[str]
    op: str
    param_count: int
    params: list[str]
    reads: list[str]
    """Ids of the layers it reads from, through any reshaping between."""
    repeat_group: str | None
    risk: RiskBlock
    sampled: SampledBlock
    scope: str
    shape_in: list[int | str | None] | None
    shape_out: list[int | str | None] | None


class LayerPage(BaseModel):
    """A page of layers in the report's order; `next_cursor` is null on the last."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[LayerBlock] | Columns
    next_cursor: int | None


class Model(BaseModel):
    """An uploaded model: `facts` once it is ready, `problem` once it is rejected."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    created_at: AwareDatetime
    facts: ModelFacts | None
    id: str
    name: str
    problem: Fault | None
    sha256: str
    size_bytes: int
    source: str | None
    """What it was fetched by, without a query; null where it was uploaded or made here."""
    state: Literal["inspecting", "ready", "rejected"]
    updated_at: AwareDatetime


class PolicyPage(BaseModel):
    """A page of policies by name; `next_cursor` is null on the last."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[StoredPolicy]
    next_cursor: str | None


class Recommendation(BaseModel):
    """A remedy, its price, and what it did when it was tried."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    action: str
    cost: Literal["config", "init", "architecture", "retrain"]
    expected: list[Expected]
    finding_ids: list[str]
    function_preserving: bool
    id: str
    patched_model_id: str | None
    rank: int
    rationale: str
    references: list[str]
    side_effects: list[str]
    snippets: list[Snippet]
    targets: list[str]
    title: str
    verification: Literal["verified", "refuted", "not_run", "not_verifiable"]
    verified: list[Verified]


class RuleList(BaseModel):
    """All rules by id."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[RuleTitle]


class Summary(BaseModel):
    """The report in one glance."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    agreement_fraction: float | None
    """Share of the comparable layers on which the two engines agree."""
    category_probabilities: CategoryProbabilities | None
    headline: str
    """One sentence a person can act on."""
    probability_untrainable: UntrainableByOptimizer | None
    score: float | None
    """0 to 100, 100 is healthy; null where too little was analysed to give one."""
    severity_counts: SeverityCounts
    spread_decades: float | None
    """Decades between the largest and the smallest gradient of the network."""
    verdict: Literal["pass", "warn", "fail", "inconclusive"]
    worst_layer: str | None


class Analysis(BaseModel):
    """An analysis: `error` once it has failed; its report is read apart once it has succeeded."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    application: Application | None
    """The recommendation it applies: it ends with a model then, and has no report."""
    architecture_id: str | None
    cached: bool
    """Whether the report is an earlier analysis's."""
    created_at: AwareDatetime
    error: Fault | None
    finished_at: AwareDatetime | None
    id: str
    model_id: str | None
    """Null for an architecture, and where the model was deleted since."""
    name: str
    options: dict[str, Any]
    progress: float
    stage: str | None
    """What is being done, such as `analytic` or `sampled`."""
    started_at: AwareDatetime | None
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    verdict: Literal["pass", "warn", "fail", "inconclusive"] | None


class AnalysisPage(BaseModel):
    """A page of analyses, newest first; `next_cursor` is null on the last."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    items: list[Analysis]
    next_cursor: str | None


class Report(BaseModel):
    """Everything gradgauge says of one model."""

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
    )
    checks: list[Check]
    compared_to: str | None
    coverage: Coverage
    findings: list[Finding]
    gate: Gate | None
    graph_url: str | None
    id: str
    layers: list[LayerBlock]
    measurements: list[MeasurementBlock]
    model: ModelBlock
    object: Literal["report"]
    provenance: Provenance
    recommendations: list[Recommendation]
    schema_version: Literal["1.0"]
    series: list[SeriesBlock]
    summary: Summary
    warnings: list[Warning]
    weights: WeightsBlock