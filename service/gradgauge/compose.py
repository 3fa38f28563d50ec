"""An assessment and its recommendations to the report: every block, every field."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.coverage import count_parameters, doubts, hides, measure_coverage
from gradgauge.graph.layers import Layer, parameters
from gradgauge.remedy.threat import risk_of
from gradgauge.risk.outlook import Asked, Outlook
from gradgauge.risk.signals import HEADS
from gradgauge.risk.thresholds import WEIGHT
from gradgauge.risk.weights import State
from gradgauge.schema.layer import (
    AgreementBlock,
    AnalyticBlock,
    LayerBlock,
    RiskBlock,
    SampledBlock,
)
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.profile import (
    ForwardCheck,
    Interval,
    Measurement,
    Quantiles,
    SampledLayer,
    Series,
)
from gradgauge.schema.report import (
    Finding,
    MeasurementBlock,
    ModelBlock,
    Provenance,
    Recommendation,
    Report,
    SeriesBlock,
    SeverityCounts,
    Summary,
    Verdict,
    Warning_,
    WeightsBlock,
)
from gradgauge.schema.wire import SEVERITIES
from gradgauge.verdict.gate import decide
from gradgauge.verdict.policy import Policy

Part = tuple[Finding, bool]  # of a layer in a finding: whether it starts there
# Looked up once: a report may have ten thousand layers.
_ANALYTIC = tuple(AnalyticBlock.model_fields)
_SAMPLED = tuple(f.name for f in fields(SampledLayer) if f.name in SampledBlock.model_fields)
_MEASUREMENT = tuple(field.name for field in fields(Measurement))
_NESTED = {kind: tuple(field.name for field in fields(kind)) for kind in (Quantiles, Interval)}
LIBRARIES = ("torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "scipy")


def report(
    assessment: Assessment,
    recommendations: Sequence[Recommendation],
    options: AnalysisOptions,
    started: datetime,
    stage_ms: Mapping[str, float],
) -> Report:
    """The wire's report of one analysis under the default policy and the options' coverage."""
    findings = _with_recommendations(assessment.findings, recommendations)
    coverage = measure_coverage(assessment)
    policy = Policy(min_coverage=options.min_coverage)
    verdict, gate = decide(findings, coverage, doubts(assessment), policy)
    state, judged_by = assessment.weights
    future = assessment.outlook or Outlook(Asked(), state, reason="none was asked for")
    digest = options.digest()
    touched = _by_layer(findings)
    return Report(
        schema_version="1.0",
        id=_report_id(assessment, digest),
        object="report",
        model=_model(assessment),
        weights=WeightsBlock(state=state, judged_by=judged_by),
        summary=_summary(assessment, findings, verdict, gate.reason, future),
        gate=gate,
        findings=findings,
        recommendations=list(recommendations),
        checks=list(assessment.checks),
        layers=[
            _layer(layer, assessment, touched.get(layer.id, ())) for layer in assessment.layers
        ],
        graph_url=None,
        coverage=coverage,
        warnings=_warnings(assessment, state, options, future),
        measurements=_measurements(assessment),
        series=_series(assessment),
        provenance=_provenance(assessment, recommendations, digest, started, stage_ms),
        compared_to=None,
    )


def shapes(values: Iterable[onnx_ir.Value]) -> dict[str, list[int | str | None]]:
    """Graph inputs or outputs with their axes; names for dynamic ones, None for unnamed."""
    return {
        v.name or "": [d if isinstance(d, int) else d.value for d in v.shape or ()] for v in values
    }


def _report_id(assessment: Assessment, digest: str) -> str:
    """The same model, options and version give the same id."""
    told = f"{assessment.graph.sha256}:{digest}:{versions()['gradgauge']}"
    return f"rep_{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _with_recommendations(
    findings: Sequence[Finding], recommendations: Sequence[Recommendation]
) -> list[Finding]:
    return [
        f.model_copy(
            update={"recommendation_ids": [r.id for r in recommendations if f.id in r.finding_ids]}
        )
        for f in findings
    ]


def _model(assessment: Assessment) -> ModelBlock:
    graph = assessment.graph
    return ModelBlock(
        id=f"sha256:{graph.sha256}",
        name=graph.name,
        format=graph.format,
        size_bytes=graph.size_bytes,
        node_count=sum(1 for _ in graph.model.graph),
        param_count=count_parameters(parameters(graph.model.graph).values()),
    )


def _summary(
    assessment: Assessment,
    findings: Sequence[Finding],
    verdict: Verdict,
    reason: str,
    future: Outlook,
) -> Summary:
    counts = {name: sum(1 for f in findings if f.severity == name) for name in SEVERITIES}
    known = bool(assessment.signals.trunk)
    worst = findings[0].origins[0] if findings and findings[0].origins else None
    return Summary(
        score=100.0 * (1.0 - risk_of(findings)) if known else None,
        verdict=verdict,
        headline=_headline(assessment, findings, verdict, reason),
        severity_counts=SeverityCounts.model_validate(counts),
        probability_untrainable=future.untrainable,
        category_probabilities=future.categories,
        spread_decades=assessment.signals.spread,
        worst_layer=worst,
        agreement_fraction=_agreement_fraction(assessment),
    )


def _headline(
    assessment: Assessment, findings: Sequence[Finding], verdict: Verdict, reason: str
) -> str:
    if findings and findings[0].severity != "low":
        return f"{findings[0].title}: {findings[0].message}"
    if verdict == "inconclusive":
        why = next((f.message for f in findings if hides(f)), reason.removeprefix("inconclusive: "))
        return f"Not enough was analysed for a verdict: {why}"
    hidden = sum(f.affected_count for f in findings if hides(f))
    heads = sum(1 for layer in assessment.layers if layer.kind in HEADS) - hidden
    plural = "s" * (heads != 1)
    spread = assessment.signals.spread or 0.0
    return f"Gradients stay within {spread:.1f} decades across {heads} parameter layer{plural}"


def _agreement_fraction(assessment: Assessment) -> float | None:
    judged = [a for a in assessment.agreement.values() if a.status != "not_comparable"]
    return sum(1 for a in judged if a.status == "agree") / len(judged) if judged else None


def _by_layer(findings: Sequence[Finding]) -> dict[str, list[Part]]:
    """Every layer's part in the findings, in their order."""
    found: dict[str, list[Part]] = {}
    for finding in findings:
        started = dict.fromkeys(finding.origins, True)
        for key, starts in (dict.fromkeys(finding.affected, False) | started).items():
            found.setdefault(key, []).append((finding, starts))
    return found


def _layer(layer: Layer, assessment: Assessment, mine: Sequence[Part]) -> LayerBlock:
    agreement = assessment.agreement[layer.id]
    return LayerBlock(
        id=layer.id,
        name=layer.name,
        scope=layer.scope,
        op=layer.op,
        nodes=list(layer.nodes),
        params=list(layer.params),
        depth=layer.depth,
        param_count=layer.param_count,
        shape_in=list(layer.shape_in) if layer.shape_in is not None else None,
        shape_out=list(layer.shape_out) if layer.shape_out is not None else None,
        repeat_group=layer.repeat_group,
        reads=list(assessment.before.get(layer.id, ())),
        finding_ids=[f.id for f, _ in mine],
        analytic=_analytic(layer.id, assessment),
        sampled=_sampled(layer.id, assessment),
        agreement=AgreementBlock(
            delta_log10=agreement.delta,
            z=agreement.z,
            status=agreement.status,
            explanation=agreement.explanation,
        ),
        risk=_risk(mine),
        measurements=_layer_measurements(layer.id, assessment),
    )


def _analytic(key: str, assessment: Assessment) -> AnalyticBlock:
    row = assessment.analytic.layers.get(key) if assessment.analytic is not None else None
    if row is None:
        blank = dict.fromkeys(_ANALYTIC)
        return AnalyticBlock.model_validate(blank | {"method": "not_supported", "assumptions": []})
    values = {name: _finite(getattr(row, name)) for name in _ANALYTIC}
    return AnalyticBlock.model_validate(values | {"assumptions": list(row.assumptions)})


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sampled(key: str, assessment: Assessment) -> SampledBlock:
    profile = assessment.sampled
    if profile is None:
        return SampledBlock.without("not_run")
    held = profile.layers.get(key)
    if held is None or not held.supported:
        return SampledBlock.without("not_supported")
    shared: dict[str, Any] = {
        "status": "measured",
        "seeds": list(profile.seeds),
        "loss": profile.loss,
        "input_kind": profile.input_kind,
    }
    taken = {name: _wire(getattr(held, name)) for name in _SAMPLED}
    return SampledBlock.model_validate(shared | taken)


def _wire(value: Any) -> Any:
    names = _NESTED.get(type(value))
    return _finite(value) if names is None else {name: getattr(value, name) for name in names}


def _risk(mine: Sequence[Part]) -> RiskBlock:
    if not mine:
        return RiskBlock(score=0.0, severity="none", category=None, role="none", confidence=0.8)
    started = [f for f, starts in mine if starts]
    worst = max(started or [f for f, _ in mine], key=lambda f: WEIGHT[f.severity])
    return RiskBlock(
        score=WEIGHT[worst.severity] * (1.0 if started else 0.5),
        severity=worst.severity if started else "none",
        category=worst.category,
        role="origin" if started else "affected",
        confidence=worst.confidence,
    )


def _layer_measurements(key: str, assessment: Assessment) -> list[MeasurementBlock]:
    analytic = assessment.analytic.beside.get(key, ()) if assessment.analytic is not None else ()
    beside = [_measurement(m) for m in analytic]
    held = assessment.sampled.layers.get(key) if assessment.sampled is not None else None
    if held is None or not held.supported:
        return beside
    told = (
        ("local_gain", held.local_log10_gain, "decades", "2-norm, through this layer alone"),
        ("log10_grad_ratio", held.log10_grad_ratio, "decades", "weight gradient over weights"),
        ("forward_mean", held.forward_mean, "activation", None),
        ("forward_variance", held.forward_variance, "activation^2", None),
        ("duplicate_fraction", held.duplicate_fraction, "1", None),
    )
    typed = [
        Measurement(name, _finite(value), unit, "sampled", note=note)
        for name, value, unit, note in told
        if value is not None
    ]
    return [_measurement(m) for m in (*typed, *held.measurements)] + beside


def _measurement(held: Measurement) -> MeasurementBlock:
    values = {name: _finite(getattr(held, name)) for name in _MEASUREMENT}
    return MeasurementBlock.model_validate(values)


def _measurements(assessment: Assessment) -> list[MeasurementBlock]:
    found = [*(assessment.analytic.measurements if assessment.analytic is not None else ())]
    found += assessment.sampled.measurements if assessment.sampled is not None else ()
    found += [_forward(assessment.forward)] if assessment.forward is not None else []
    return [_measurement(held) for held in found]


def _forward(held: ForwardCheck) -> Measurement:
    if held.reason is not None:
        note = f"not compared: {held.reason}"
    else:
        note = f"output {held.output!r}, {held.inputs} inputs, tolerance {held.tolerance:.3g}"
        if held.rounding is not None:
            note += f"; float32 alone differs from float64 by {held.rounding:.3g}"
    value = _finite(held.difference)
    return Measurement("onnxruntime_difference", value, "relative", "sampled", note=note)


def _series(assessment: Assessment) -> list[SeriesBlock]:
    curves = [*(assessment.analytic.series if assessment.analytic is not None else ())]
    if assessment.sampled is not None:
        curves += [time.curve for time in assessment.sampled.times]
        curves += assessment.sampled.series
    return [SeriesBlock.model_validate(_listed(held)) for held in curves]


def _listed(held: Series) -> dict[str, Any]:
    """Tuples as lists, what is not finite as null."""
    return {
        key: [_finite(v) for v in value] if isinstance(value, tuple) else value
        for key, value in asdict(held).items()
    }


def _warnings(
    assessment: Assessment, state: State, options: AnalysisOptions, future: Outlook
) -> list[Warning_]:
    told = [(w.code, w.message) for w in assessment.graph.warnings]
    told += [(w.code, w.message) for w in assessment.reading.warnings]
    told += _idle_options(options)
    if future.reason is not None:
        told.append(("W_NO_PROBABILITY", f"no probability of failing: {future.reason}"))
    if future.remark is not None:
        told.append(("W_FAR_FROM_CALIBRATION", future.remark))
    if state == "trained":
        told.append(
            (
                "W_TRAINED_WEIGHTS",
                (
                    "the weights are trained: the analytic profile is a random-weight baseline, "
                    "the sampled one decides"
                ),
            )
        )
    if assessment.sampled is not None and assessment.sampled.dtype == "float64":
        told.append(
            (
                "W_FLOAT64",
                "some sizes lie outside what float32 holds safely and were measured in float64",
            )
        )
    told += assessment.sampled.warnings if assessment.sampled is not None else ()
    if assessment.forward is not None and assessment.forward.reason is not None:
        told.append(
            (
                "W_FORWARD_NOT_COMPARED",
                f"the forward pass was not compared with onnxruntime: {assessment.forward.reason}",
            )
        )
    return [Warning_(code=code, message=message, layer_ids=[]) for code, message in told]


def _idle_options(options: AnalysisOptions) -> list[tuple[str, str]]:
    """Options this version, or the profile, accepts and does not act on."""
    asked = ["target_dtypes"] if options.profile == "quick" else []
    idle = [name for name in asked if name in options.model_fields_set and getattr(options, name)]
    return [("W_OPTION_UNUSED", f"this version does not act on option {name!r}") for name in idle]


def _provenance(
    assessment: Assessment,
    recommendations: Sequence[Recommendation],
    digest: str,
    started: datetime,
    stage_ms: Mapping[str, float],
) -> Provenance:
    model, sampled = assessment.graph.model, assessment.sampled
    return Provenance(
        service_version=versions()["gradgauge"],
        analysis_config_sha256=digest,
        model_sha256=assessment.graph.sha256,
        ir_version=model.ir_version,
        opset={k or "ai.onnx": v for k, v in model.opset_imports.items()},
        versions={name: versions()[name] for name in LIBRARIES},
        device=sampled.device if sampled is not None else "cpu",
        dtype=sampled.dtype if sampled is not None else "float64",
        # what was cut off by the clock may not be another time
        deterministic=not any(r.verification == "not_run" for r in recommendations),
        seeds=list(sampled.seeds) if sampled is not None else [],
        started_at=started,
        finished_at=datetime.now(UTC),
        stage_ms={**stage_ms, **(sampled.stage_ms if sampled is not None else {})},
    )


@cache
def versions() -> Mapping[str, str]:
    """Of this package and the libraries a report depends on, by name."""
    return {name: _version(name) for name in ("gradgauge", *LIBRARIES)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
