"""Settings of training tried by the probe: labels learnt with them and without."""

import math
from dataclasses import replace

from gradgauge.assess import Assessment
from gradgauge.errors import LimitExceeded
from gradgauge.remedy.config import rate_of
from gradgauge.remedy.refused import as_limit
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.search import HELPS, Outcome, Tried, is_late
from gradgauge.remedy.threat import probability, threat
from gradgauge.sampled.memorisation import RATES
from gradgauge.sampled.trial import Trial, losses_left
from gradgauge.schema.report import Finding

PROBED = "probe_loss"


def probed(
    assessment: Assessment,
    remedy: Remedy,
    finding: Finding,
    risk: float,
    *,
    plain: float | None = None,
) -> Tried:
    """The loss after some steps of training over a constant answer's, as it is and under it.

    Of another optimizer the calibrated probability is told besides, and has to fall. `plain` is the
    loss as it is, where it is known.
    """
    trial = remedy.recipe(assessment, finding) if remedy.recipe is not None else None
    left, outcome = _measured(assessment, trial, plain)
    held = Tried(
        remedy=remedy,
        finding=finding,
        patch=(),
        expected=None,
        before=left[0] if left is not None else 0.0,
        after=left[1] if left is not None else None,
        interval=None,
        risk_before=risk,
        risk_after=risk,
        outcome=outcome,
        trial=trial,
        # of clipping and the learning rate no probability is known: told behind what has one
        local=trial is not None and trial.optimizer == "adam",
    )
    if not held.moves:
        return held
    before, after = (probability(assessment, optimizer=name) for name in (None, "adam"))
    falls = after is not None and (before is None or after < before)
    return replace(
        held,
        left=held.after,
        chances=(before, after),
        threats=(threat(assessment), threat(assessment, optimizer="adam")),
        outcome="refuted" if outcome == "verified" and not falls else outcome,
    )


def learns(copy: Assessment, trial: Trial) -> float | None:
    """What is left of a constant answer's loss after some steps on a copy; None where not run."""
    left, _ = _measured(copy, trial, math.inf)
    return left[1] if left is not None else None


def starts(copy: Assessment) -> float | None:
    """The least that SGD leaves of a constant answer's loss, by rate: the one asked for, or usual.

    None where it cannot be tried.
    """
    asked = copy.plan.asked
    given = asked.lr if asked is not None else None
    left = [learns(copy, Trial(rate)) for rate in (RATES["sgd"][:2] if given is None else (given,))]
    return min((v for v in left if v is not None), default=None)


def _measured(
    assessment: Assessment, trial: Trial | None, plain: float | None
) -> tuple[list[float] | None, Outcome]:
    if trial is None:
        return None, "not_verifiable"
    if is_late(assessment):
        return None, "not_run"
    trials = [trial] if plain is not None else [Trial(rate_of(assessment)), trial]
    try:
        with as_limit():
            left = losses_left(
                assessment.graph.model,
                assessment.layers,
                assessment.reading,
                trials,
                seed=assessment.seed,
                budget=assessment.plan.budget,
            )
    except LimitExceeded:
        return None, "not_run"
    if left is None:
        return None, "not_verifiable"
    left = left if plain is None else [plain, *left]
    # another optimizer need not outdo SGD on a few inputs, which differ less than a task does,
    # nor learn much of them: the calibrated probability has to fall besides
    bar = 1.0 if trial.optimizer == "adam" else HELPS * min(left[0], 1.0)
    return left, "verified" if left[1] < bar else "refuted"
