"""Remedies tried on a copy, measured as the original was, and ranked by what they did."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gradgauge.assess import Assessment, assess
from gradgauge.graph.model import Graph
from gradgauge.remedy.patch import Patch, apply
from gradgauge.remedy.rules import REMEDIES, Remedy
from gradgauge.risk.thresholds import WEIGHT
from gradgauge.schema.profile import Interval
from gradgauge.schema.report import Expected, Finding, Recommendation, Snippet, Verified
from gradgauge.schema.report import Interval as WireInterval

Outcome = Literal["verified", "refuted"]
COSTS = {"config": 1.0, "init": 2.0, "architecture": 3.0, "retrain": 4.0}
CURED = 1.0  # decades of spread (or the whole share of units) that a cure must stay below


@dataclass(frozen=True, slots=True)
class Tried:
    """One remedy for one finding, applied and measured."""

    remedy: Remedy
    finding: Finding
    patch: Patch
    expected: float | None
    before: float
    after: float | None
    interval: Interval | None
    risk_before: float
    risk_after: float
    outcome: Outcome


def recommend(
    assessment: Assessment, *, on_progress: Callable[[float], None] | None = None
) -> list[Recommendation]:
    """Try every remedy that answers a finding of at least medium severity; best first."""
    tried = try_all(assessment, on_progress=on_progress)
    return [_recommendation(i, t, assessment) for i, t in enumerate(tried, 1)]


def try_all(
    assessment: Assessment, *, on_progress: Callable[[float], None] | None = None
) -> list[Tried]:
    """What `recommend` reports, with the patches: verified before refuted, then by drop in risk."""
    jobs = [
        (remedy, finding)
        for finding in assessment.findings
        if WEIGHT[finding.severity] >= WEIGHT["medium"]
        for remedy in REMEDIES
        if finding.category in remedy.categories and remedy.check(assessment, finding) is None
    ]
    tried: list[Tried] = []
    for i, (remedy, finding) in enumerate(jobs):
        patch = remedy.rewrite(assessment, finding)
        if patch and not any(patch == t.patch and finding is t.finding for t in tried):
            tried.append(_try(assessment, remedy, finding, patch))
        if on_progress is not None:
            on_progress((i + 1) / len(jobs))
    tried.sort(key=_rank)
    return tried


def _rank(tried: Tried) -> tuple[bool, bool, float]:
    """Verified first; of those what leaves less than CURED; then by drop in risk per cost."""
    drop = tried.risk_before - tried.risk_after
    left = tried.after is None or tried.after >= CURED
    return tried.outcome != "verified", left, -drop / COSTS[tried.remedy.cost]


def risk_of(findings: Sequence[Finding]) -> float:
    """0 to 1: one minus the product of what each finding leaves of health."""
    return 1.0 - math.prod(1.0 - WEIGHT[finding.severity] for finding in findings)


def _try(assessment: Assessment, remedy: Remedy, finding: Finding, patch: Patch) -> Tried:
    model = apply(assessment.graph.model, patch)
    graph = replace(assessment.graph, model=model)
    expected = _foretold(assessment, graph, finding)
    # the copy's forward pass is run by the same ops: what was said of them still holds
    passes = replace(assessment.plan, wish=None)
    again = assess(graph, assessment.reading, passes, forward=lambda: assessment.forward)
    before = metric(assessment, finding) or 0.0
    after = metric(again, finding)
    risk_before, risk_after = risk_of(assessment.findings), risk_of(again.findings)
    helps = risk_after < risk_before and after is not None and _better(after, before, again)
    return Tried(
        remedy=remedy,
        finding=finding,
        patch=patch,
        expected=expected,
        before=before,
        after=after,
        interval=_interval(again, after),
        risk_before=risk_before,
        risk_after=risk_after,
        outcome="verified" if helps else "refuted",
    )


def _better(after: float, before: float, again: Assessment) -> bool:
    """The finding's own metric fell, and where gradients were zero there are some now."""
    held = again.sampled.layers.values() if again.sampled is not None else ()
    return after < before or (
        before == 0.0 and not any(s.zero_gradient for s in held if s.supported)
    )


def metric(assessment: Assessment, finding: Finding) -> float | None:
    """What a finding is measured by, in decades or as a share: smaller is better."""
    name = METRICS.get(finding.rule_id)
    if name == "time_decades":
        return _time_decades(assessment)
    if name is None:
        return assessment.signals.spread
    held = assessment.sampled.layers.values() if assessment.sampled is not None else ()
    shares = [getattr(s, name) for s in held if getattr(s, name) is not None]
    return max(shares, default=0.0)


METRICS = {
    "GF103": "time_decades",
    "GF104": "time_decades",
    "GF201": "dead_fraction",
    "GF202": "saturated_fraction",
}
UNITS = {"dead_fraction": "1", "saturated_fraction": "1"}


def _time_decades(assessment: Assessment) -> float | None:
    times = assessment.sampled.times if assessment.sampled is not None else ()
    held = [[v for v in time.log10_grad if v is not None] for time in times]
    return max((max(v) - min(v) for v in held if v), default=None)


def _foretold(assessment: Assessment, graph: Graph, finding: Finding) -> float | None:
    """What the analytic engine alone says of the patched copy: the prediction to be scored."""
    if finding.rule_id in METRICS or assessment.analytic is None:
        return None
    alone = replace(assessment.plan, engines=frozenset({"analytic"}))
    return assess(graph, assessment.reading, alone).signals.spread


def _interval(again: Assessment, after: float | None) -> Interval | None:
    """Of the spread: the intervals of its two ends, added in quadrature."""
    trunk = again.signals.trunk
    if after is None or again.sampled is None or not trunk:
        return None
    ends = (min(trunk, key=lambda p: p[1])[0], max(trunk, key=lambda p: p[1])[0])
    intervals = [again.sampled.layers[e].log10_grad_act_ci for e in ends]
    halves = [(i.high - i.low) / 2 for i in intervals if i is not None]
    if len(halves) < 2:
        return None
    half = math.hypot(*halves)
    return Interval(max(0.0, after - half), after + half, 0.95, "order_statistics")


def _recommendation(rank: int, tried: Tried, assessment: Assessment) -> Recommendation:
    remedy, finding = tried.remedy, tried.finding
    name = METRICS.get(finding.rule_id)
    wire = "summary.spread_decades" if name is None else f"{name}"
    unit = UNITS.get(name or "", "decades")
    interval = tried.interval if name is None else None
    targets = remedy.targets(assessment, finding)
    layers = [layer for layer in assessment.layers if layer.id in targets]
    return Recommendation(
        id=f"R{rank}",
        action=remedy.action,
        title=remedy.title(assessment, finding),
        targets=list(targets),
        finding_ids=[finding.id],
        rank=rank,
        rationale=remedy.rationale,
        cost=remedy.cost,
        function_preserving=False,
        expected=[Expected(metric=wire, before=tried.before, after=tried.expected, unit=unit)]
        if tried.expected is not None
        else [],
        verification=tried.outcome,
        verified=[
            Verified(
                metric=wire,
                before=tried.before,
                after=tried.after,
                unit=unit,
                ci_after=_wire(interval),
            ),
            Verified(
                metric="risk",
                before=tried.risk_before,
                after=tried.risk_after,
                unit="1",
                ci_after=None,
            ),
        ],
        side_effects=list(remedy.side_effects),
        patched_model_id=None,
        snippets=[Snippet(framework="pytorch", code=remedy.snippet(layers))],
        references=list(remedy.references),
    )


def _wire(interval: Interval | None) -> WireInterval | None:
    if interval is None:
        return None
    return WireInterval(
        low=interval.low, high=interval.high, level=interval.level, method=interval.method
    )
