"""Whether the network will train: the calibrated probabilities as the report carries them."""

from dataclasses import dataclass

from gradgauge.risk import calibration
from gradgauge.risk.calibration import Bounds, Level, Optimizer
from gradgauge.risk.features import Evidence, Features, features
from gradgauge.risk.weights import State
from gradgauge.schema.report import CategoryProbabilities, Untrainable, UntrainableByOptimizer

TRAINED = "the weights are trained, and the calibration is for networks at initialisation"
UNKNOWN = "both engines are needed, and each has to know the gradient of some parameter layer"
OUTSIDE = 0.5  # confidence below which the reader is told
SURE = 0.9  # and from which on the gate goes by the probability


@dataclass(frozen=True, slots=True)
class Asked:
    """How the caller trains, and the share of failures assumed; all None where it is not said."""

    optimizer: Optimizer | None = None
    lr: float | None = None
    base_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """Both probabilities, or why there are none; `remark` where they are little but a guess.

    `level` is the set of signals they are told by, with the user's targets or without, `asked`
    what they were told for, `state` that of the weights.
    """

    asked: Asked
    state: State
    level: Level | None = None
    has_target: bool = False
    untrainable: UntrainableByOptimizer | None = None
    categories: CategoryProbabilities | None = None
    reason: str | None = None
    remark: str | None = None

    def bounds(self, optimizer: Optimizer) -> Bounds:
        """What the optimizer's probability is held against; there must be one."""
        at_rate = self.asked.lr is not None and self.asked.optimizer == optimizer
        level = self.level or "analytic"
        return calibration.bounds(level, optimizer, at_rate=at_rate, has_target=self.has_target)


def outlook(held: Evidence, asked: Asked, state: State) -> tuple[Outlook, Outlook]:
    """At the rate asked for, for its optimizer; else for the best of the usual rates.

    The second is what profile quick would tell of the same measurements: copies, which are
    measured no further, are compared with that.
    """
    if state == "trained":
        none = Outlook(asked, state, reason=TRAINED)
        return none, none
    found = features(held)
    full = told(found, asked, state)
    return full, told(found, asked, state, "quick") if full.level == "standard" else full


def told(found: Features, asked: Asked, state: State, level: Level | None = None) -> Outlook:
    """What the calibration says of features, at their own level or one below it."""
    level = level or calibration.level_of(found)
    if level is None:
        return Outlook(asked, state, reason=UNKNOWN)
    shares = calibration.categories(found, level, base_rate=asked.base_rate)
    both = {name: _untrainable(found, level, name, asked) for name in ("sgd", "adam")}
    confidence = min(one.confidence for one in both.values())
    remark = None
    if confidence < OUTSIDE:
        remark = (
            f"confidence {confidence:.2f}: this network is unlike those the calibration was "
            "fitted on (small ones), so its probabilities are drawn towards their base rate"
        )
    return Outlook(
        asked=asked,
        state=state,
        level=level,
        has_target=bool(found.get("target")),
        untrainable=UntrainableByOptimizer.model_validate(both),
        categories=CategoryProbabilities.model_validate(shares),
        remark=remark,
    )


def _untrainable(found: Features, level: Level, name: str, asked: Asked) -> Untrainable:
    optimizer: Optimizer = "adam" if name == "adam" else "sgd"
    lr = asked.lr if asked.optimizer == optimizer else None
    told = calibration.probability(found, optimizer, level=level, lr=lr, base_rate=asked.base_rate)
    return Untrainable(
        p=told.p,
        low=told.low,
        high=told.high,
        lr=lr,
        calibration=calibration.version(),
        confidence=told.confidence,
        base_rate=told.base_rate,
    )
