"""Remedies tried on a copy, measured as the original was, and ranked by what they did."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gradgauge.assess import Assessment, assess
from gradgauge.errors import LimitExceeded
from gradgauge.graph.reading import Reading
from gradgauge.remedy.chains import CHAINS, adds_batch_norm, chained, restart
from gradgauge.remedy.optimizer import DOUBTFUL, TRIAL, is_apart, with_adam
from gradgauge.remedy.patch import Patch, apply
from gradgauge.remedy.refused import as_limit
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import (
    CHAINED,
    HELPS,
    Outcome,
    Tried,
    answering,
    asks,
    enough,
    is_known,
    is_late,
    is_local,
    layers_of,
    merged,
    rank,
    share_of,
    until,
    wanted,
)
from gradgauge.remedy.setting import PROBED, learns, probed, starts
from gradgauge.remedy.threat import foretold, probability, risk_of, threat
from gradgauge.remedy.variety import varied
from gradgauge.remedy.whole import acted_on
from gradgauge.risk.signals import read_signals
from gradgauge.risk.unlikely import ID, leading
from gradgauge.sampled.allocator import let_go
from gradgauge.sampled.memorisation import LONGER
from gradgauge.schema.profile import Interval
from gradgauge.schema.report import Expected, Finding, Recommendation, Snippet, Verified
from gradgauge.schema.report import Interval as WireInterval


def recommend(
    assessment: Assessment, *, on_progress: Callable[[float], None] | None = None
) -> list[Recommendation]:
    """Try every remedy that answers a finding that asks for one; best first."""
    tried = try_all(assessment, on_progress=on_progress)
    return [_recommendation(i, t, assessment) for i, t in enumerate(tried, 1)]


def try_all(
    assessment: Assessment, *, on_progress: Callable[[float], None] | None = None
) -> list[Tried]:
    """What `recommend` reports, with the patches: verified before refuted, then by drop in risk."""
    assessment = replace(assessment, until=until(assessment))
    jobs = [
        (row, acted_on(assessment, finding))
        for finding in assessment.findings
        for row in answering(assessment, REMEDIES, finding)
    ]
    tried = _anew(assessment)
    for i, (remedy, finding) in enumerate(jobs):
        if not enough(tried, finding):
            found = _attempt(assessment, remedy, finding, tried)
            tried += [found] if found is not None else []
        if on_progress is not None:
            on_progress((i + 1) / (len(jobs) + 1))
    tried += _combined(assessment, tried)
    tried += _moved(assessment, tried)
    if on_progress is not None and jobs:
        on_progress(1.0)
    return varied(merged(sorted(tried, key=rank)))


def _attempt(
    assessment: Assessment, remedy: Remedy, finding: Finding, tried: Sequence[Tried]
) -> Tried | None:
    """The remedy measured; None where it changes nothing, or what another one has changed."""
    if remedy.is_setting:
        settings = (t for t in tried if t.remedy.is_setting and t.after is not None)
        plain = next((t.before for t in settings), None)
        return probed(assessment, remedy, finding, risk_of(assessment.as_copy), plain=plain)
    patch = _rewritten(assessment, remedy, finding)
    if not patch or any(patch == t.patch and finding.id == t.finding.id for t in tried):
        return None
    known = next((t for t in tried if t.patch == patch and t.again is not None), None)
    return _try(assessment, remedy, finding, patch, known)


def _anew(assessment: Assessment) -> list[Tried]:
    """A start anew of the whole network, as it is and under Adam; none of trained weights."""
    worst = next((f for f in assessment.findings if asks(f)), None)
    held = assessment.outlook
    if worst is None or held is None or held.state == "trained" or not is_apart(assessment):
        return []
    try:
        with as_limit():
            made = restart(assessment, acted_on(assessment, worst))
    except LimitExceeded:
        return []
    if made is None:
        return []
    remedy, patch = made
    found = replace(_try(assessment, remedy, acted_on(assessment, worst), patch), anew=True)
    if found.again is None or is_late(assessment):
        return [found, _unmoved(found)]
    return [found, _under_adam(found, probability(found.again, optimizer="adam"))]


def _combined(assessment: Assessment, tried: Sequence[Tried]) -> Iterator[Tried]:
    """Where nothing alone has left the network healthy: chains, until one does."""
    worst = next((f for f in assessment.findings if asks(f)), None)
    if worst is None or any(one.healthy or one.mends for one in tried):
        return
    left, done = CHAINED, {one.remedy.action for one in tried}
    for rows in CHAINS:
        if left <= 0:
            return
        remedy, patch = _chained(assessment, worst, rows)
        if remedy.action in done or "+" not in remedy.action:
            continue
        done.add(remedy.action)
        left -= 1
        found = _try(assessment, remedy, worst, patch)
        yield found
        if found.healthy or found.outcome == "not_run":
            return


def _moved(assessment: Assessment, tried: Sequence[Tried]) -> Iterator[Tried]:
    """The copies that Adam rather trains than SGD, trained by Adam in the probe.

    The most likely ones, as many as cures are looked for. Where no probability is known, those of
    which the least of the metric is left.
    """
    if not is_apart(assessment):
        return
    held: dict[int, tuple[float, float | None, Tried]] = {}
    for one in tried:
        if one.again is None or one.cured or one.anew:
            continue
        chance = probability(one.again, optimizer="adam")
        known = one.chances[0] is not None
        if known and chance is not None and chance < min(DOUBTFUL, one.chances[1] or 1.0):
            held.setdefault(id(one.again), (chance, chance, one))
        elif not known and chance is None and one.outcome == "verified" and one.after is not None:
            held.setdefault(id(one.again), (one.after, None, one))
    for _, chance, one in sorted(held.values(), key=lambda row: row[0])[: wanted(tried)]:
        late = is_late(assessment)
        yield _unmoved(one) if late else _under_adam(one, chance)


def _unmoved(one: Tried) -> Tried:
    """The copy under Adam, for which no time was left."""
    return replace(
        one,
        remedy=with_adam(one.remedy),
        expected=None,
        after=None,
        interval=None,
        chances=(one.chances[0], None),
        threats=(one.threats[0],) * 2,
        outcome="not_run",
        trial=TRIAL,
    )


def _under_adam(one: Tried, chance: float | None) -> Tried:
    """Verified where the finding's metric falls, the threat under Adam, and the probe's loss."""
    if one.again is None:
        raise AssertionError("unreachable")
    whole = one.finding.rule_id == ID
    after = chance if whole else one.after
    now, before = threat(one.again, optimizer="adam"), one.threats[0]
    left = learns(one.again, TRIAL)
    helps = after is not None and now < before and _better(after, one.before, one.again)
    # where a probability falls, something learnt is enough; it is no cure then
    bar = HELPS if chance is None else 1.0
    if one.anew and not helps:  # its like mends where less is told of a copy than was of this one
        helps, bar = True, HELPS
    if one.anew and left is not None and left >= bar:  # it may learn more slowly
        left = learns(one.again, replace(TRIAL, steps=LONGER))
    outcome: Outcome = "verified" if helps and left is not None and left < bar else "refuted"
    return replace(
        one,
        remedy=with_adam(one.remedy),
        expected=None if whole else one.expected,
        after=after,
        interval=None if whole else one.interval,
        threats=(before, now),
        chances=(one.chances[0], chance),
        outcome=outcome if left is not None or not helps else "not_verifiable",
        left=left,
        trial=TRIAL,
    )


def _chained(
    assessment: Assessment, finding: Finding, rows: Sequence[Remedy]
) -> tuple[Remedy, Patch]:
    try:
        with as_limit():
            return chained(assessment, finding, rows)
    except LimitExceeded:
        return chained(assessment, finding, ())


def _rewritten(assessment: Assessment, remedy: Remedy, finding: Finding) -> Patch:
    """The remedy's patch; empty where it takes a run for which time or memory is over."""
    try:
        with as_limit():
            return remedy.rewrite(assessment, finding)
    except LimitExceeded:
        return ()


def _try(
    assessment: Assessment,
    remedy: Remedy,
    finding: Finding,
    patch: Patch,
    known: Tried | None = None,
) -> Tried:
    """The patch judged for the finding; `known` has tried it for another one, where one has."""
    untried = tried_as(assessment, remedy, finding, patch)
    if known is None and is_late(assessment):
        return untried
    try:
        again = known.again if known is not None else None
        if again is None:
            with as_limit():
                again = _measured(assessment, patch)
    except LimitExceeded:  # time or memory is over: what was found so far stands
        return untried
    after, now = metric(again, finding), threat(again, untried.chances[0])
    falls = now < untried.threats[0]
    helps = falls and after is not None and _better(after, untried.before, again)
    found = replace(
        untried,
        left=known.left if known is not None else None,
        expected=_foretold(assessment, again, finding),
        after=after,
        interval=_interval(again, after),
        risk_after=risk_of(again.as_copy),
        threats=(untried.threats[0], now),
        chances=(untried.chances[0], probability(again)),
        outcome="verified" if helps else "refuted",
        again=again,
    )
    if found.left is not None or not is_apart(assessment):
        return found
    if found.known and found.outcome == "refuted" and found.chances[1] is None:
        # nothing is told of the copy, so that nothing could fall: training says whether it helps
        left = starts(again)
        learnt = left is not None and left < HELPS
        return replace(found, left=left, outcome="verified" if learnt else "refuted")
    return replace(found, left=starts(again)) if found.cured else found


def _measured(assessment: Assessment, patch: Patch) -> Assessment:
    """The patched copy's assessment at profile quick, of the same seeds."""
    memory = assessment.plan.budget.live_bytes
    if memory is not None and memory < TIGHT:
        let_go()
    graph = replace(assessment.graph, model=apply(assessment.graph.model, patch))
    return assess(
        graph,
        reading_of(assessment, patch),
        replace(assessment.plan, depth="quick", wish=None),
        # the copy's forward pass is run by the same ops: what was said of them still holds
        forward=lambda: assessment.forward,
        weights=assessment.weights,
    )


def tried_as(
    assessment: Assessment,
    remedy: Remedy,
    finding: Finding,
    patch: Patch,
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
        threats=(threat(assessment),) * 2,
        chances=(probability(assessment), None),
        share=share_of(remedy, finding, assessment),
        local=is_local(remedy, finding, assessment),
        known=is_known(remedy, finding, assessment),
    )


def reading_of(assessment: Assessment, patch: Patch) -> Reading:
    """As the original was read; a new BatchNormalization has no statistics but a batch's."""
    new = adds_batch_norm(patch)
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
    if name == CHANCE:
        return probability(assessment)
    if name is None:
        return assessment.signals.spread
    held = assessment.sampled.layers.values() if assessment.sampled is not None else ()
    shares = [getattr(s, name) for s in held if getattr(s, name) is not None]
    return max(shares, default=0.0)


CHANCE = "probability_untrainable"
TIGHT = 1 << 30  # bytes of a memory limit below which what the last copy left is let go first
APART = 0.1  # decades of spread below which no change is foretold
METRICS = {
    ID: CHANCE,
    "GF203": "duplicate_fraction",
    "GF103": "time_decades",
    "GF104": "time_decades",
    "GF201": "dead_fraction",
    "GF202": "saturated_fraction",
}
UNITS = {CHANCE: "1", "dead_fraction": "1", "saturated_fraction": "1", "duplicate_fraction": "1"}


def _time_decades(assessment: Assessment) -> float | None:
    times = assessment.sampled.times if assessment.sampled is not None else ()
    held = [[v for v in time.log10_grad if v is not None] for time in times]
    return max((max(v) - min(v) for v in held if v), default=None)


def _foretold(assessment: Assessment, again: Assessment, finding: Finding) -> float | None:
    """What the analytic engine, which sees no sample, says of the copy: the prediction to score.

    None where that is no further from what is than the engines are from one another.
    """
    if finding.rule_id == ID:
        return foretold(assessment, again)
    if finding.rule_id in METRICS or again.analytic is None:
        return None
    spread = read_signals(again.layers, again.before, again.analytic, None).spread
    before = metric(assessment, finding) or 0.0
    return spread if spread is not None and abs(spread - before) >= APART else None


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
    chance = CHANCE if tried.moves else _chance(assessment)
    wire = {None: "summary.spread_decades", CHANCE: chance}.get(name, f"{name}")
    unit = UNITS.get(name or "", "decades")
    interval = tried.interval if name is None else None
    layers = layers_of(remedy, finding, assessment)
    codes = remedy.snippets(assessment, finding, layers)
    return Recommendation(
        id=f"R{rank}",
        action=remedy.action,
        title=remedy.title(assessment, finding),
        targets=[layer.id for layer in layers],
        finding_ids=[finding.id, *tried.also],
        rank=rank,
        rationale=remedy.rationale,
        cost=remedy.cost,
        function_preserving=remedy.function_preserving or remedy.is_setting,
        expected=[Expected(metric=wire, before=tried.before, after=tried.expected, unit=unit)]
        if tried.expected is not None
        else [],
        verification=tried.outcome,
        verified=_verified(tried, wire, unit, interval, chance),
        side_effects=list(remedy.side_effects),
        patched_model_id=None,
        snippets=[Snippet(framework=name, code=code) for name, code in codes.items()],
        references=list(remedy.references),
    )


def _chance(assessment: Assessment) -> str:
    """The field of the report that holds the probability the search goes by."""
    lead = leading(assessment.outlook) if assessment.outlook is not None else "sgd"
    return f"summary.{CHANCE}.{lead}.p"


def _verified(
    tried: Tried, wire: str, unit: str, interval: Interval | None, chance: str
) -> list[Verified]:
    """Before and after: the finding's own metric, the whole risk, the probability where known.

    Nothing where nothing was run.

    Of a setting it is the probe's loss over a constant answer's.
    """
    if tried.outcome in {"not_run", "not_verifiable"}:
        return []
    if tried.remedy.is_setting:
        left = [
            v if v is not None and math.isfinite(v) else None for v in (tried.before, tried.after)
        ]
        told = [Verified(metric=PROBED, before=left[0], after=left[1], unit="1", ci_after=None)]
        return told + _chances(tried, chance)
    found = [
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
    return found + (_chances(tried, chance) if wire != chance else [])


def _chances(tried: Tried, chance: str) -> list[Verified]:
    """Of a remedy that changes the optimizer: by the one in use before, and by the new one."""
    before, after = tried.chances
    if before is None or after is None:
        return []
    return [Verified(metric=chance, before=before, after=after, unit="1", ci_after=None)]


def _wire(interval: Interval | None) -> WireInterval | None:
    if interval is None:
        return None
    return WireInterval(
        low=interval.low, high=interval.high, level=interval.level, method=interval.method
    )
