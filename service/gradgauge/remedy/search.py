"""Which remedies are tried for which finding, in which order, and when it is enough."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gradgauge.assess import Assessment
from gradgauge.graph.layers import Layer
from gradgauge.remedy.outlier import standing_out
from gradgauge.remedy.patch import Patch
from gradgauge.remedy.places import heads_of
from gradgauge.remedy.row import COSTS, Remedy
from gradgauge.remedy.whole import acted_on, answers, is_whole
from gradgauge.risk.thresholds import WEIGHT
from gradgauge.risk.unlikely import ID
from gradgauge.sampled.trial import Trial
from gradgauge.schema.profile import Interval
from gradgauge.schema.report import Finding

Outcome = Literal["verified", "refuted", "not_run", "not_verifiable"]
CURED = 1.0  # decades of spread (or the whole share of units) that a cure must stay below
PER_FINDING = 8  # patches tried for one finding
ALTOGETHER = 12  # copies measured in one analysis, chains not included
CHAINED = 4  # and of chains
BEST = 3  # cures after which no more are looked for
TIMES = 2.4  # the analysis' own processor time: what remedies may take, the last one's end apart
AT_LEAST = 1.0  # seconds, below which nothing is cut off
LIKELY = 0.3  # probability of failing below which a copy counts as mended
FALLS = 0.5  # and over the original's, where that is small as well
HELPS = 0.9  # of a constant answer's loss must not be left where something is learnt
ALONE = 0.7  # nor this much under Adam alone, where a start anew mends more
LEARNT = 0.5  # of a constant answer's loss: what a setting leaves that counts as a cure
PATHS = 24  # blocks from which a residual path around each mends what no start of them does
BEYOND = "GF401"  # another runtime's difference, which no patch of the network ends
PATH = "insert_residual"
_ORDER: Mapping[Outcome, int] = {"verified": 0, "not_verifiable": 1, "refuted": 2, "not_run": 3}


@dataclass(frozen=True, slots=True)
class Tried:
    """One remedy for one finding, applied and measured; `again` is the copy's assessment.

    `chances` are the calibrated probabilities of failing before and after, None where there are
    none; `threats` put them and the findings into one number each, which the search brings down.
    `also` are ids of further findings that the same patch helps; `share` is how many layers are
    touched, over how many have parameters; `local` that they are among those at fault. `trial` is
    the setting it was tried under, of one that changes how the network is trained; under another
    optimizer the chances and threats are its own. `known` is `is_known`; `anew` that it is the
    start anew of the whole network (`chains.restart`). `left` is what some steps of training leave
    of a constant answer's loss on the copy, None where that was not tried.
    """

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
    threats: tuple[float, float] = (0.0, 0.0)
    chances: tuple[float | None, float | None] = (None, None)
    again: Assessment | None = None
    also: tuple[str, ...] = ()
    share: float = 0.0
    trial: Trial | None = None
    local: bool = False
    known: bool = False
    anew: bool = False
    left: float | None = None

    @property
    def moves(self) -> bool:
        """Whether it trains with another optimizer, so that the leading one's outlook is past."""
        return self.trial is not None and self.trial.optimizer == "adam"

    @property
    def cured(self) -> bool:
        """Verified, its finding is gone, the copy is likely to train and starts to.

        Where no probability is known, neither now nor before: what is left of the metric is small,
        or some labels were learnt by another optimizer.
        Of a setting that has none: much of the labels was learnt under it.
        """
        before, after = self.chances
        if self.outcome != "verified" or self.after is None:
            return False
        bar = HELPS if self.patch or not self.moves else ALONE
        if self.left is not None and self.left >= bar:
            return False
        if self.again is None:
            return after < LIKELY if self.moves and after is not None else self.after < LEARNT
        if self.finding.rule_id in {f.rule_id for f in self._left}:
            return False
        if after is None:
            learnt = self.moves and self.left is not None
            return before is None and (self.after < CURED or learnt)
        return after < (LIKELY if before is None else min(LIKELY, FALLS * before))

    @property
    def mends(self) -> bool:
        """Whether training has shown its like to mend most networks, whatever a copy is told."""
        return self.outcome == "verified" and self.anew and self.moves

    @property
    def healthy(self) -> bool:
        """Cured, and no other serious finding is left that a remedy could answer."""
        return self.again is not None and self.cured and not self._left

    @property
    def _left(self) -> list[Finding]:
        """Of the copy's findings those that ask for a remedy and can be answered."""
        found = self.again.findings if self.again is not None else ()
        likely = self.chances[1] is not None and self.chances[1] < LIKELY
        past = {BEYOND, ID} if self.moves or likely else {BEYOND}
        return [f for f in found if asks(f) and f.rule_id not in past]


def asks(finding: Finding) -> bool:
    """Whether a finding asks for a remedy: of at least medium severity, or a doubtful outlook."""
    return WEIGHT[finding.severity] >= WEIGHT["medium"] or finding.rule_id == ID


def answering(assessment: Assessment, remedies: Sequence[Remedy], finding: Finding) -> list[Remedy]:
    """The rows that answer a finding that asks for a remedy: what is known first, then by cost."""
    if not asks(finding):
        return []
    acted = acted_on(assessment, finding)
    rows = [
        remedy
        for remedy in remedies
        if answers(remedy, finding) and remedy.check(assessment, acted) is None
    ]
    return sorted(rows, key=lambda one: (not is_known(one, acted, assessment), COSTS[one.cost]))


def enough(tried: Sequence[Tried], finding: Finding) -> bool:
    """Whether no more single remedies are tried for the finding."""
    mine = [t for t in tried if t.finding.id == finding.id and t.again and not t.anew]
    cures = sum(t.cured for t in mine)
    return len(mine) >= PER_FINDING or cures >= wanted(tried) or room(tried) <= 0


def wanted(tried: Sequence[Tried]) -> int:
    """How many cures are looked for besides a start anew that mends."""
    return BEST - any(t.mends for t in tried)


def room(tried: Sequence[Tried]) -> int:
    """How many more copies the analysis may measure."""
    return ALTOGETHER - len({id(t.again) for t in tried if t.again is not None})


def until(assessment: Assessment) -> float | None:
    """The processor time, in seconds of this process, from which on no more is tried.

    None at profile quick, of which a copy takes as long as the analysis itself.
    """
    if assessment.plan.depth == "quick":
        return None
    return time.process_time() + max(AT_LEAST, TIMES * assessment.seconds)


def is_late(assessment: Assessment) -> bool:
    """Whether the analysis' time is over, or what remedies may take of the processor's."""
    if assessment.until is not None and time.process_time() > assessment.until:
        return True
    seconds, since = assessment.plan.budget.seconds, assessment.plan.budget.since
    return seconds is not None and since is not None and time.monotonic() - since > seconds


def rank(tried: Tried) -> tuple[int, bool, bool, bool, bool, bool, float]:
    """Verified first; of those what is known to mend; then what cures, a start anew.

    Cures are ranked by drop in threat per cost and share.

    The drop of a cure counts as far as labels were learnt on its copy. What does not cure is ranked
    by its drop alone: cheap advice that seldom helps is no better than dear advice that may.

    A cure that touches other layers than those at fault is behind one that does not, and so is one
    that asks for another optimizer besides its patch.
    """
    drop = tried.threats[0] - tried.threats[1]
    if tried.cured and tried.left is not None:
        drop *= 1.0 - tried.left
    return (
        _ORDER[tried.outcome],
        not tried.known,
        not tried.cured,
        not (tried.cured or tried.mends),
        tried.cured and not tried.local,
        tried.cured and bool(tried.patch) and tried.moves,
        -drop / (tried.remedy.price * (1.0 + tried.share) if tried.cured else 1.0),
    )


def merged(ranked: Sequence[Tried]) -> list[Tried]:
    """One for each patch: the best, with the ids of the other findings that it is verified for."""
    found: list[Tried] = []
    for one in ranked:
        alike = (i for i, t in enumerate(found) if (t.patch, t.moves) == (one.patch, one.moves))
        at = next(alike, None) if one.patch else None
        if at is None:
            found.append(one)
        elif one.outcome == found[at].outcome:
            found[at] = replace(found[at], also=(*found[at].also, one.finding.id))
    return found


def share_of(remedy: Remedy, finding: Finding, assessment: Assessment) -> float:
    """Layers a remedy touches over layers that have parameters, at most 1."""
    count = sum(bool(layer.params) for layer in assessment.layers)
    return min(1.0, len(remedy.targets(assessment, finding)) / max(1, count))


def is_local(remedy: Remedy, finding: Finding, assessment: Assessment) -> bool:
    """Whether it touches no layer but those that stand out or that a rule's finding starts at."""
    named = [o for f in assessment.findings if not is_whole(f) for o in f.origins]
    heads = (head.id for head in heads_of(assessment, named))
    at_fault = {*standing_out(assessment), *named, *heads}
    return at_fault.issuperset(remedy.targets(assessment, finding))


def is_known(remedy: Remedy, finding: Finding, assessment: Assessment) -> bool:
    """Whether training has shown the remedy to mend where copies' probabilities say little of it.

    A residual path in a deep plain network, whatever its copy is told: such copies are rare in the
    calibration's fit (decision 0109).
    """
    if PATH not in remedy.action.split("+"):
        return False
    return len(remedy.targets(assessment, finding)) >= PATHS


def layers_of(remedy: Remedy, finding: Finding, assessment: Assessment) -> list[Layer]:
    """The layers a remedy touches, in the graph's order."""
    targets = frozenset(remedy.targets(assessment, finding))
    return [layer for layer in assessment.layers if layer.id in targets]
