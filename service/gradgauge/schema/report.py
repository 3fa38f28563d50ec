"""The report, the one thing every surface of gradgauge shows: its blocks and its JSON Schema."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import AwareDatetime, model_validator

from gradgauge.schema.layer import (
    AgreementBlock,
    AnalyticBlock,
    LayerBlock,
    RiskBlock,
    SampledBlock,
)
from gradgauge.schema.wire import (
    SEVERITIES,
    Block,
    Category,
    Count,
    Exact,
    Fraction,
    Interval,
    Listed,
    MeasurementBlock,
    Number,
    Positive,
    Quantiles,
    Score,
    Severity,
    Text,
)

__all__ = [
    "SEVERITIES",
    "AgreementBlock",
    "AnalyticBlock",
    "CategoryProbabilities",
    "Check",
    "Coverage",
    "Evidence",
    "Expected",
    "Finding",
    "Gate",
    "Interval",
    "LayerBlock",
    "MeasurementBlock",
    "ModelBlock",
    "Provenance",
    "Quantiles",
    "Recommendation",
    "Report",
    "RiskBlock",
    "SampledBlock",
    "SeriesBlock",
    "SeverityCounts",
    "Snippet",
    "Summary",
    "Untrainable",
    "UntrainableByOptimizer",
    "Verdict",
    "Verified",
    "Warning_",
    "WeightsBlock",
    "fingerprint",
    "json_schema",
]

SCHEMA_VERSION = "1.0"
Verdict = Literal["pass", "warn", "fail", "inconclusive"]
FailOn = Literal["low", "medium", "high", "critical", "never"]


class ModelBlock(Block):
    """What was analysed."""

    id: Text
    name: Text
    format: Literal["onnx", "spec"]
    size_bytes: Count | None
    node_count: Count
    param_count: Count


class Untrainable(Block):
    """Probability that training at learning rate `lr` fails; `lr` null means at any usual rate."""

    p: Fraction
    low: Fraction
    high: Fraction
    lr: Positive | None
    calibration: Text
    confidence: Fraction
    """1 inside the range of the networks the calibration was fitted on, falling with distance."""
    base_rate: Fraction
    """Share of failures among networks like this one that `p` assumes: the fit's, or as asked."""


class UntrainableByOptimizer(Block):
    """The probability for each optimiser."""

    sgd: Untrainable
    adam: Untrainable


class CategoryProbabilities(Block):
    """What training will do; the four sum to 1."""

    trains: Fraction
    vanishing: Fraction
    exploding: Fraction
    other: Fraction


class SeverityCounts(Block):
    """Findings by severity."""

    critical: Count
    high: Count
    medium: Count
    low: Count
    none: Count


class Summary(Block):
    """The report in one glance."""

    score: Score | None
    """0 to 100, 100 is healthy; null where too little was analysed to give one."""
    verdict: Verdict
    headline: Text
    """One sentence a person can act on."""
    severity_counts: SeverityCounts
    probability_untrainable: UntrainableByOptimizer | None
    category_probabilities: CategoryProbabilities | None
    spread_decades: Positive | None
    """Decades between the largest and the smallest gradient of the network."""
    worst_layer: Text | None
    agreement_fraction: Fraction | None
    """Share of the comparable layers on which the two engines agree."""


class WeightsBlock(Block):
    """Whether the weights look drawn or trained, and what that is judged by."""

    state: Literal["fresh", "trained", "unknown"]
    judged_by: Text


class SeriesBlock(Block):
    """A curve: x, y and its interval are lists of one length."""

    name: Text
    unit: Text
    """Unit of y, low and high."""
    x: Listed[Exact]
    y: Listed[Number | None]
    low: Listed[Number | None]
    high: Listed[Number | None]

    @model_validator(mode="after")
    def _is_of_one_length(self) -> Self:
        lengths = [len(self.x), len(self.y), len(self.low), len(self.high)]
        if len(set(lengths)) > 1:
            raise ValueError(f"x, y, low, high hold {lengths} points: pad with null")
        return self


class Evidence(Block):
    """One number a finding stands on: `value comparator threshold` holds."""

    metric: Text
    value: Number | None
    threshold: Number | None
    comparator: Literal["<", "<=", ">", ">=", "==", "!="]
    source: Literal["analytic", "sampled"]
    unit: Text


class Finding(Block):
    """Something wrong, told once: where it starts, and which layers it reaches."""

    id: Text
    rule_id: Text
    title: Text
    message: Text
    severity: Severity
    category: Category
    confidence: Fraction
    fingerprint: Text
    """Same over re-runs: it knows the rule, the category and the origin's scope, no metric."""
    origins: Listed[Text]
    affected: Listed[Text]
    affected_count: Count
    evidence: Listed[Evidence]
    status: Literal["new", "existing", "fixed", "suppressed"]
    suppression: Text | None
    recommendation_ids: Listed[Text]


class Expected(Block):
    """What a remedy should do to a metric."""

    metric: Text
    before: Number | None
    after: Number | None
    unit: Text


class Verified(Block):
    """What a remedy did to a metric on a copy of the model, measured."""

    metric: Text
    before: Number | None
    after: Number | None
    unit: Text
    ci_after: Interval | None


class Snippet(Block):
    """A remedy as code."""

    framework: Text
    code: Text


class Recommendation(Block):
    """A remedy, its price, and what it did when it was tried."""

    id: Text
    action: Text
    title: Text
    targets: Listed[Text]
    finding_ids: Listed[Text]
    rank: Count
    rationale: Text
    cost: Literal["config", "init", "architecture", "retrain"]
    function_preserving: bool
    expected: Listed[Expected]
    verification: Literal["verified", "refuted", "not_run", "not_verifiable"]
    verified: Listed[Verified]
    side_effects: Listed[Text]
    patched_model_id: Text | None
    snippets: Listed[Snippet]
    references: Listed[Text]


class Check(Block):
    """A rule and what came of it; `reason` is null only where it passed."""

    rule_id: Text
    title: Text
    status: Literal["passed", "failed", "not_applicable", "not_run"]
    reason: Text | None


class Warning_(Block):  # noqa: N801 - `Warning` is Python's own
    """Something the reader should know before believing a number."""

    code: Text
    message: Text
    layer_ids: Listed[Text]


class Coverage(Block):
    """How much of the model each engine reached."""

    nodes_total: Count
    nodes_analytic: Count
    nodes_sampled: Count
    params_total: Count
    params_covered: Count
    """Parameters that every engine asked for covers."""
    unsupported_ops: dict[Text, Count]


class Provenance(Block):
    """What it takes to get the same report again."""

    service_version: Text
    analysis_config_sha256: Text
    model_sha256: Text
    ir_version: int | None
    opset: dict[Text, int]
    versions: dict[Text, Text]
    device: Text
    dtype: Text
    deterministic: bool
    seeds: Listed[int]
    started_at: AwareDatetime
    finished_at: AwareDatetime
    stage_ms: dict[Text, Positive]


class Gate(Block):
    """Whether the policy lets the model through; what follows `inconclusive: ` says why not."""

    policy: Text
    passed: bool
    fail_on: FailOn
    violating_findings: Listed[Text]
    reason: Text


class Report(Block):
    """Everything gradgauge says of one model."""

    schema_version: Literal["1.0"]
    id: Text
    object: Literal["report"]
    model: ModelBlock
    weights: WeightsBlock
    summary: Summary
    gate: Gate | None
    findings: Listed[Finding]
    recommendations: Listed[Recommendation]
    checks: Listed[Check]
    layers: Listed[LayerBlock]
    graph_url: Text | None
    coverage: Coverage
    warnings: Listed[Warning_]
    measurements: Listed[MeasurementBlock]
    series: Listed[SeriesBlock]
    provenance: Provenance
    compared_to: Text | None


def json_schema() -> dict[str, Any]:
    """The report's JSON Schema (draft 2020-12), exported from the models."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="validation"),
    }


def fingerprint(rule_id: str, category: str, origin_scope: str) -> str:
    """16 hex digits of SHA-256 that name a finding over re-runs: no metric goes in."""
    told = json.dumps([rule_id, category, origin_scope])  # lists cannot be confused by separators
    return hashlib.sha256(told.encode()).hexdigest()[:16]
