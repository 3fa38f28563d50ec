"""Which remedies are tried for which finding, in which order, and when it is enough."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gradgauge.assess import Assessment
from gradgauge.graph.layers import Layer
from gradgauge.remedy.patch import Patch
from gradgauge.remedy.row import COSTS, Remedy
from gradgauge.risk.thresholds import WEIGHT
from gradgauge.schema.profile import Interval
from gradgauge.schema.report import Finding

Outcome = Literal["verified", "refuted", "not_run", "not_verifiable"]
CURED = 1.0  # decades of spread (or the whole share of units) that a cure must stay below
PER_FINDING = 6  # patches tried for one finding
ALTOGETHER = 12  # patches tried in one analysis, combinations included
BEST = 3  # cures after which no more are looked for
TOGETHER = 3  # remedies of one combination
_ORDER: Mapping[Outcome, int] = {"verified": 0, "not_verifiable": 1, "refuted": 2, "not_run": 3}


@dataclass(frozen=True, slots=True)
class Tried:
    """One remedy for one finding, applied and measured; `again` is the copy's assessment."""

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
    again: Assessment | None = None

    @property
    def cured(self) -> bool:
        """Verified, what is left of the finding's metric is small, and so is its finding."""
        if self.outcome != "verified" or self.again is None or self.after is None:
            return False
        rules = {f.rule_id for f in self.again.findings if is_serious(f)}
        return self.after < CURED and self.finding.rule_id not in rules


def is_serious(finding: Finding) -> bool:
    """Whether a finding is of at least medium severity: one that asks for a remedy."""
    return WEIGHT[finding.severity] >= WEIGHT["medium"]


def answering(assessment: Assessment, remedies: Sequence[Remedy], finding: Finding) -> list[Remedy]:
    """The rows that answer a finding of at least medium severity, cheapest first."""
    if not is_serious(finding):
        return []
    rows = [
        remedy
        for remedy in remedies
        if finding.rule_id in remedy.answers and remedy.check(assessment, finding) is None
    ]
    return sorted(rows, key=lambda remedy: COSTS[remedy.cost])


def enough(tried: Sequence[Tried], finding: Finding) -> bool:
    """Whether no more single remedies are tried for the finding."""
    mine = [t for t in tried if t.finding is finding and t.again is not None]
    cures = sum(t.cured for t in mine)
    return len(mine) >= PER_FINDING or cures >= BEST or room(tried) <= 0


def room(tried: Sequence[Tried]) -> int:
    """How many more patches the analysis may try."""
    return ALTOGETHER - sum(t.again is not None for t in tried)


def is_late(assessment: Assessment) -> bool:
    """Whether the analysis' time is over."""
    seconds, since = assessment.plan.budget.seconds, assessment.plan.budget.since
    return seconds is not None and since is not None and time.monotonic() - since > seconds


def rank(tried: Tried) -> tuple[int, bool, float]:
    """Verified first; of those what leaves less than CURED; then by drop in risk per cost."""
    drop = tried.risk_before - tried.risk_after
    return _ORDER[tried.outcome], not tried.cured, -drop / tried.remedy.price


def joined(first: Tried, second: Remedy, finding: Finding, assessment: Assessment) -> Remedy:
    """Two remedies as one row, the second as it applies to the copy that the first has left."""
    copy = first.again
    if copy is None:
        raise AssertionError("unreachable")
    title = f"{first.remedy.title(assessment, first.finding)}; then {second.title(copy, finding)}"
    ids = frozenset(second.targets(copy, finding))
    held = [layer for layer in copy.layers if layer.id in ids]
    own = {layer.output: layer.id for layer in assessment.layers}
    more = tuple(own[layer.output] for layer in held if layer.output in own)
    named = dict.fromkeys((*first.remedy.targets(assessment, first.finding), *more))
    targets = tuple(named)
    before = [layer for layer in assessment.layers if layer.id in named]
    codes = first.remedy.snippets(assessment, first.finding, before)
    after = second.snippets(copy, finding, held)
    kinds = (first.remedy.cost, *first.remedy.besides, second.cost)
    ordered = sorted(kinds, key=COSTS.__getitem__)
    return Remedy(
        action=f"{first.remedy.action}+{second.action}",
        answers=first.remedy.answers,
        cost=ordered[-1],
        besides=tuple(ordered[:-1]),
        does=f"{first.remedy.does}; {second.does}",
        rationale=f"{first.remedy.rationale}; {second.rationale}",
        side_effects=tuple(dict.fromkeys((*first.remedy.side_effects, *second.side_effects))),
        references=tuple(dict.fromkeys((*first.remedy.references, *second.references))),
        check=lambda _a, _f: None,
        title=lambda _a, _f: title,
        targets=lambda _a, _f: targets,
        snippets=lambda _a, _f, _layers: _both(codes, after),
        function_preserving=first.remedy.function_preserving and second.function_preserving,
    )


def _both(first: Mapping[str, str], second: Mapping[str, str]) -> Mapping[str, str]:
    return {key: f"{code}\n{second[key]}" for key, code in first.items()}


def layers_of(remedy: Remedy, finding: Finding, assessment: Assessment) -> list[Layer]:
    """The layers a remedy touches, in the graph's order."""
    targets = frozenset(remedy.targets(assessment, finding))
    return [layer for layer in assessment.layers if layer.id in targets]
