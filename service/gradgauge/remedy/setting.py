"""Settings of training tried by the probe: labels learnt with them and without."""

from gradgauge.assess import Assessment
from gradgauge.errors import LimitExceeded
from gradgauge.remedy.config import rate_of
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.search import Outcome, Tried, is_late
from gradgauge.sampled.trial import Trial, losses_left
from gradgauge.schema.report import Finding

PROBED = "probe_loss"
HELPS = 0.9  # of the loss without the setting, and of a constant answer's, must not be left


def probed(assessment: Assessment, remedy: Remedy, finding: Finding, risk: float) -> Tried:
    """The loss after some steps of SGD over a constant answer's, as it is and under the setting."""
    left, outcome = _measured(assessment, remedy, finding)
    return Tried(
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
    )


def _measured(
    assessment: Assessment, remedy: Remedy, finding: Finding
) -> tuple[list[float] | None, Outcome]:
    if remedy.recipe is None:
        return None, "not_verifiable"
    if is_late(assessment):
        return None, "not_run"
    trials = [Trial(rate_of(assessment)), remedy.recipe(assessment, finding)]
    try:
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
    return left, "verified" if left[1] < HELPS * min(left[0], 1.0) else "refuted"
