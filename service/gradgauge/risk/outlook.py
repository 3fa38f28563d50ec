"""Whether the network will train: the calibrated probabilities as the report carries them."""

from dataclasses import dataclass

from gradgauge.risk import calibration
from gradgauge.risk.calibration import Optimizer
from gradgauge.risk.features import Evidence, Features, features
from gradgauge.risk.weights import State
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.report import CategoryProbabilities, Untrainable, UntrainableByOptimizer

TRAINED = "the weights are trained, and the calibration is for networks at initialisation"
UNKNOWN = "both engines are needed, and each has to know the gradient of some parameter layer"
OUTSIDE = 0.5  # confidence below which the reader is told


@dataclass(frozen=True, slots=True)
class Outlook:
    """Both probabilities, or why there are none; `remark` where they are little but a guess."""

    untrainable: UntrainableByOptimizer | None = None
    categories: CategoryProbabilities | None = None
    reason: str | None = None
    remark: str | None = None


def outlook(held: Evidence, options: AnalysisOptions, state: State) -> Outlook:
    """At the rate asked for, for its optimizer; else for the best of the usual rates."""
    if state == "trained":
        return Outlook(reason=TRAINED)
    found = features(held)
    level = calibration.level_of(found)
    shares = calibration.categories(found, base_rate=options.base_rate)
    if level is None or shares is None:
        return Outlook(reason=UNKNOWN)
    both = {name: _untrainable(found, name, options) for name in ("sgd", "adam")}
    confidence = min(one.confidence for one in both.values())
    remark = None
    if confidence < OUTSIDE:
        remark = (
            f"confidence {confidence:.2f}: this network is unlike those the calibration was "
            "fitted on (small ones), so its probabilities are drawn towards their base rate"
        )
    return Outlook(
        untrainable=UntrainableByOptimizer.model_validate(both),
        categories=CategoryProbabilities.model_validate(shares),
        remark=remark,
    )


def _untrainable(found: Features, name: str, options: AnalysisOptions) -> Untrainable:
    optimizer: Optimizer = "adam" if name == "adam" else "sgd"
    lr = options.lr if options.optimizer == optimizer else None
    told = calibration.probability(found, optimizer, lr=lr, base_rate=options.base_rate)
    return Untrainable(
        p=told.p,
        low=told.low,
        high=told.high,
        lr=lr,
        calibration=calibration.version(),
        confidence=told.confidence,
        base_rate=told.base_rate,
    )
