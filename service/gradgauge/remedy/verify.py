"""Remedies tried on a copy, measured as the original was, and ranked by what they did."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from gradgauge.assess import Assessment, assess
from gradgauge.errors import LimitExceeded
from gradgauge.graph.reading import Reading
from gradgauge.remedy.patch import Insert, Patch, apply
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import (
    TOGETHER,
    Tried,
    answering,
    enough,
    is_late,
    is_serious,
    joined,
    layers_of,
    rank,
    room,
)
from gradgauge.remedy.setting import PROBED, probed
from gradgauge.risk.signals import read_signals
from gradgauge.risk.thresholds import WEIGHT
from gradgauge.schema.profile import Interval
from gradgauge.schema.report import Expected, Finding, Recommendation, Snippet, Verified
from gradgauge.schema.report import Interval as WireInterval

MORE = 3  # remedies tried on top of the best one


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
    jobs = [(r, f) for f in assessment.findings for r in answering(assessment, REMEDIES, f)]
    tried: list[Tried] = []
    for i, (remedy, finding) in enumerate(jobs):
        if not enough(tried, finding):
            found = _attempt(assessment, remedy, finding, tried)
            tried += [found] if found is not None else []
        if on_progress is not None:
            on_progress((i + 1) / (len(jobs) + 1))
    tried += _combined(assessment, tried)
    if on_progress is not None and jobs:
        on_progress(1.0)
    tried.sort(key=rank)
    return tried


def _attempt(
    assessment: Assessment, remedy: Remedy, finding: Finding, tried: Sequence[Tried]
) -> Tried | None:
    """The remedy measured; None where it changes nothing, or what another one has changed."""
    if remedy.is_setting:
        return probed(assessment, remedy, finding, risk_of(assessment.as_copy))
    patch = _rewritten(assessment, remedy, finding)
    if not patch or any(patch == t.patch and finding is t.finding for t in tried):
        return None
    return _try(assessment, remedy, finding, patch)


def _combined(assessment: Assessment, tried: Sequence[Tried]) -> Iterator[Tried]:
    """Where nothing alone has left the network healthy, the best and what helps its copy most.

    At most TOGETHER remedies, each chosen for the first finding that the copy still has.
    """
    best = min(tried, key=rank, default=None)
    left = room(tried)
    for _ in range(TOGETHER - 1):
        if best is None or best.outcome != "verified" or best.risk_after == 0.0:
            return
        copy = best.again
        found = [] if copy is None else list(islice(_onwards(assessment, best, copy), left))
        left -= len(found)
        yield from found
        best = min(found, key=rank, default=None)


def _onwards(assessment: Assessment, best: Tried, copy: Assessment) -> Iterator[Tried]:
    """Remedies for the worst finding of a copy, put on top of what made it."""
    left = next((f for f in copy.findings if is_serious(f)), None)
    if left is None:
        return
    done = set(best.remedy.action.split("+"))
    rows = [r for r in answering(copy, REMEDIES, left) if r.action not in done and not r.is_setting]
    for remedy in rows[:MORE]:
        patch = _rewritten(copy, remedy, left)
        if not patch:
            continue
        both = joined(best, remedy, left, assessment)
        tried = _try(assessment, both, best.finding, best.patch + patch)
        helps = tried.risk_after < best.risk_after
        yield tried if helps or tried.outcome != "verified" else replace(tried, outcome="refuted")


def _rewritten(assessment: Assessment, remedy: Remedy, finding: Finding) -> Patch:
    """The remedy's patch; empty where it takes a run for which time or memory is over."""
    try:
        return remedy.rewrite(assessment, finding)
    except LimitExceeded:
        return ()


def risk_of(findings: Sequence[Finding]) -> float:
    """0 to 1: one minus the product of what each finding leaves of health."""
    return 1.0 - math.prod(1.0 - WEIGHT[finding.severity] for finding in findings)


def _try(assessment: Assessment, remedy: Remedy, finding: Finding, patch: Patch) -> Tried:
    model = apply(assessment.graph.model, patch)
    graph = replace(assessment.graph, model=model)
    # the copy's forward pass is run by the same ops: what was said of them still holds
    passes = replace(assessment.plan, depth="quick", wish=None)
    untried = tried_as(assessment, remedy, finding, patch)
    before, risk_before = untried.before, untried.risk_before
    if is_late(assessment):
        return untried
    try:
        again = assess(
            graph,
            reading_of(assessment, patch),
            passes,
            forward=lambda: assessment.forward,
            weights=assessment.weights,
        )
    except LimitExceeded:  # time or memory is over: what was found so far stands
        return untried
    after, risk_after = metric(again, finding), risk_of(again.findings)
    helps = risk_after < risk_before and after is not None and _better(after, before, again)
    return replace(
        untried,
        expected=_foretold(again, finding),
        after=after,
        interval=_interval(again, after),
        risk_after=risk_after,
        outcome="verified" if helps else "refuted",
        again=again,
    )


def tried_as(
    assessment: Assessment,
    remedy: Remedy,
    finding: Finding,
    patch: Patch,
    again: Assessment | None = None,
) -> Tried:
    """The remedy as it stands before its run is judged."""
    risk = risk_of(assessment.as_copy)
    return Tried(
        remedy=remedy,
        finding=finding,
        patch=patch,
        expected=None,
        before=metric(assessment, finding) or 0.0,
        after=None,
        interval=None,
        risk_before=risk,
        risk_after=risk,
        outcome="not_run",
        again=again,
    )


def reading_of(assessment: Assessment, patch: Patch) -> Reading:
    """As the original was read; a new BatchNormalization has no statistics but a batch's."""
    held = (change.op_type for change in patch if isinstance(change, Insert))
    new = "BatchNormalization" in held
    return replace(assessment.reading, batch_statistics=True) if new else assessment.reading


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
    "GF203": "duplicate_fraction",
    "GF103": "time_decades",
    "GF104": "time_decades",
    "GF201": "dead_fraction",
    "GF202": "saturated_fraction",
}
UNITS = {"dead_fraction": "1", "saturated_fraction": "1", "duplicate_fraction": "1"}


def _time_decades(assessment: Assessment) -> float | None:
    times = assessment.sampled.times if assessment.sampled is not None else ()
    held = [[v for v in time.log10_grad if v is not None] for time in times]
    return max((max(v) - min(v) for v in held if v), default=None)


def _foretold(again: Assessment, finding: Finding) -> float | None:
    """What the analytic engine, which sees no sample, says of the copy: the prediction to score."""
    if finding.rule_id in METRICS or again.analytic is None:
        return None
    return read_signals(again.layers, again.before, again.analytic, None).spread


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
    layers = layers_of(remedy, finding, assessment)
    codes = remedy.snippets(assessment, finding, layers)
    return Recommendation(
        id=f"R{rank}",
        action=remedy.action,
        title=remedy.title(assessment, finding),
        targets=[layer.id for layer in layers],
        finding_ids=[finding.id],
        rank=rank,
        rationale=remedy.rationale,
        cost=remedy.cost,
        function_preserving=remedy.function_preserving or remedy.is_setting,
        expected=[Expected(metric=wire, before=tried.before, after=tried.expected, unit=unit)]
        if tried.expected is not None
        else [],
        verification=tried.outcome,
        verified=_verified(tried, wire, unit, interval),
        side_effects=list(remedy.side_effects),
        patched_model_id=None,
        snippets=[Snippet(framework=name, code=code) for name, code in codes.items()],
        references=list(remedy.references),
    )


def _verified(tried: Tried, wire: str, unit: str, interval: Interval | None) -> list[Verified]:
    """Before and after, of the finding's own metric and of the whole risk; nothing if not run.

    Of a setting it is the probe's loss over a constant answer's.
    """
    if tried.outcome in {"not_run", "not_verifiable"}:
        return []
    if tried.remedy.is_setting:
        left = [
            v if v is not None and math.isfinite(v) else None for v in (tried.before, tried.after)
        ]
        return [Verified(metric=PROBED, before=left[0], after=left[1], unit="1", ci_after=None)]
    return [
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
    ]


def _wire(interval: Interval | None) -> WireInterval | None:
    if interval is None:
        return None
    return WireInterval(
        low=interval.low, high=interval.high, level=interval.level, method=interval.method
    )
