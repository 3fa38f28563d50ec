"""How bad a network is, as one number: the findings and the calibrated probability together."""

import math
from collections.abc import Sequence

from gradgauge.assess import Assessment
from gradgauge.risk.calibration import Level, Optimizer
from gradgauge.risk.features import features
from gradgauge.risk.outlook import SURE, told
from gradgauge.risk.thresholds import WEIGHT
from gradgauge.risk.unlikely import ID, leading
from gradgauge.schema.report import Finding

SURELY = 1e-6  # odds are not drawn further than this from 0 and 1
# of the log odds' change on a copy: the offset, the share of the original's, that of the shift by
# analytic signals; fitted by `python -m benchmarks.repair foretold` on the fit part
MOVES = (0.32, -0.36, 1.18)
LEAST = 0.7  # change of log odds from which nine in ten directions are right there


def risk_of(findings: Sequence[Finding]) -> float:
    """0 to 1: one minus the product of what each finding leaves of health."""
    return 1.0 - math.prod(1.0 - WEIGHT[finding.severity] for finding in findings)


def probability(
    assessment: Assessment, level: Level | None = None, optimizer: Optimizer | None = None
) -> float | None:
    """P(fails to train) by the leading optimizer, as a copy is told it: at most by quick's signals.

    With `level` by that one's signals alone, with `optimizer` by that one. None where there is
    none, or little confidence in it.
    """
    held = assessment.outlook
    if held is None or held.untrainable is None:
        return None
    if level is not None or held.level == "standard":
        held = told(features(assessment.evidence), held.asked, held.state, level or "quick")
    if held.untrainable is None:
        return None
    lead = optimizer or leading(held)
    one = held.untrainable.adam if lead == "adam" else held.untrainable.sgd
    return one.p if one.confidence >= SURE else None


def threat(
    assessment: Assessment, unknown: float | None = None, optimizer: Optimizer | None = None
) -> float:
    """What the search brings down: one minus health by the findings times P(trains).

    `unknown` stands for a probability that is not known: the original's, which a copy has to beat;
    `optimizer` for the one that leads.
    """
    rest = [finding for finding in assessment.as_copy if finding.rule_id != ID]
    p = probability(assessment, optimizer=optimizer)
    p = unknown if p is None else p
    return 1.0 - (1.0 - risk_of(rest)) * (1.0 - (p or 0.0))


def foretold(original: Assessment, copy: Assessment) -> float | None:
    """A copy's probability as the analytic engine, which sees no sample, foretells it.

    The original's odds, moved by what the analytic signals' odds move by and back towards even
    odds, as a line fitted on copies says. None where that is too little to tell a direction.
    """
    now, shift = probability(original), shifted(original, copy)
    if now is None or shift is None:
        return None
    offset, back, by = MOVES
    change = offset + back * _logit(now) + by * shift
    if abs(change) < LEAST:
        return None
    return 1.0 / (1.0 + math.exp(-(_logit(now) + change)))


def shifted(original: Assessment, copy: Assessment) -> float | None:
    """How much greater a copy's log odds of failing are by analytic signals alone."""
    before, after = (probability(one, "analytic") for one in (original, copy))
    if before is None or after is None:
        return None
    return _logit(after) - _logit(before)


def _logit(p: float) -> float:
    held = min(max(p, SURELY), 1.0 - SURELY)
    return math.log(held) - math.log1p(-held)
