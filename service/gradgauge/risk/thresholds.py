"""The numbers findings are judged by, in one table, until a calibrated model replaces them.

They are chosen, not fitted: a gradient must stay within what an optimizer with one learning rate
for all layers can bridge. The decades are of 2-norms, so that widths and strides drop out.
"""

from typing import Final

from gradgauge.schema.wire import Severity

# smallest value at which a finding has the severity, worst first
Ladder = tuple[tuple[float, Severity], ...]

VANISHING_DECADES: Final[Ladder] = ((5.0, "critical"), (2.6, "high"), (2.0, "medium"))
EXPLODING_DECADES: Final[Ladder] = ((5.0, "critical"), (2.6, "high"), (2.0, "medium"))
# from the last time step to the first
TIME_DECADES: Final[Ladder] = ((10.0, "critical"), (5.0, "high"), (3.0, "medium"))
# a gated cell starts with a short memory and learns a longer one, so it is never more than this
GATED_TIME_DECADES: Final[Ladder] = ((5.0, "medium"),)
DEAD_FRACTION: Final[Ladder] = ((0.999, "critical"), (0.9, "high"), (0.7, "medium"))
SATURATED_FRACTION: Final[Ladder] = ((0.95, "critical"), (0.8, "high"), (0.5, "medium"))
DUPLICATE_FRACTION: Final[Ladder] = ((0.9, "high"), (0.5, "medium"))
NONFINITE_FRACTION: Final[Ladder] = ((1e-12, "critical"),)

ORIGIN_SHARE = 0.5  # an origin's gain is at least this share of the worst one's
ORIGIN_FLOOR = 0.12  # and at least so many decades
BIAS_OUTLIER = 3.0  # |mean| over standard deviation of a pre-activation
LARGE_GAIN = 0.3  # decades by which a head must amplify to be blamed for saturating its activation


def severity(value: float, ladder: Ladder) -> Severity:
    """The worst severity whose threshold `value` reaches; `none` below all."""
    return next((name for limit, name in ladder if value >= limit), "none")


def lowest(ladder: Ladder) -> float:
    """The value from which on there is a finding at all."""
    return ladder[-1][0]


WEIGHT: Final[dict[Severity, float]] = {
    "none": 0.0,
    "low": 0.1,
    "medium": 0.35,
    "high": 0.7,
    "critical": 0.95,
}
