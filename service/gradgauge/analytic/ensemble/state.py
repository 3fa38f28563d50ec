"""What is known of a signal at one point of a spec, of a gradient, of what a layer does to it."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from gradgauge.schema.shape_state import Shape


class State(NamedTuple):
    """Moments of one element over the ensemble of weights and over inputs.

    `m` = E x, `q` = E x^2; `t` = E x x' at two positions of one input, `o` at one position of two
    inputs, `u` at two positions of two inputs (x and x' of one channel). A vector has one position:
    there `t` is q and `u` is o. `shape` is without the batch.
    """

    shape: Shape
    m: float
    q: float
    t: float
    o: float
    u: float

    @property
    def size(self) -> int:
        """Values of one input."""
        return math.prod(self.shape)

    @property
    def v(self) -> float:
        """Variance of an element."""
        return max(self.q - self.m * self.m, 0.0)

    def scaled(self, factor: float) -> "State":
        """The signal times a number."""
        if factor == 1.0:
            return self
        s = factor * factor
        return State(self.shape, factor * self.m, s * self.q, s * self.t, s * self.o, s * self.u)

    def vector(self, shape: Shape) -> "State":
        """The same elements with one position."""
        return State(shape, self.m, self.q, self.q, self.o, self.o)


class Flow(NamedTuple):
    """A gradient: E g^2 of an element is g 10^e, E g g' at two positions of one input t 10^e."""

    g: float
    t: float
    e: float

    @property
    def log10_rms(self) -> float | None:
        """Decades; None where the gradient is exactly zero."""
        return 0.5 * (math.log10(self.g) + self.e) if self.g > 0 else None


def plus(a: Flow, b: Flow) -> Flow:
    """Two contributions that are independent."""
    if b.g == 0.0:
        return a
    if a.g == 0.0:
        return b
    e = max(a.e, b.e)
    x, y = 10.0 ** (a.e - e), 10.0 ** (b.e - e)
    return Flow(a.g * x + b.g * y, a.t * x + b.t * y, e)


NOTHING = Flow(0.0, 0.0, 0.0)
ONE = Flow(1.0, 0.0, 0.0)


class Transfer(NamedTuple):
    """What a layer does to a gradient: g' = gg g + gt t, t' = tg g + tt t."""

    gg: float
    gt: float
    tg: float
    tt: float

    def __call__(self, flow: Flow) -> Flow:
        """The gradient at the layer's input for that at its output."""
        g = self.gg * flow.g + self.gt * flow.t
        t = self.tg * flow.g + self.tt * flow.t
        if not (0 < g < math.inf):
            return NOTHING if not g > 0 else Flow(g, t, flow.e)
        if 1e-100 < g < 1e100:
            return Flow(g, t, flow.e)
        return Flow(1.0, t / g, flow.e + math.log10(g))


def scale(factor: float, common: float | None = None) -> Transfer:
    """A layer that multiplies g by `factor` and t by `common` (the same unless given)."""
    return Transfer(factor, 0.0, 0.0, factor if common is None else common)


def blend(before: Transfer, after: Transfer, a: float, b: float) -> Transfer:
    """Write `a` times one plus b times the other: two ways that begin at one value."""
    return Transfer(*(a * x + b * y for x, y in zip(before, after, strict=True)))


STOP = scale(0.0)
PASS = scale(1.0)


class Weight(NamedTuple):
    """The largest parameter of a layer: E (dL/dW)^2 is `of_g` g + `of_t` t at the layer's output.

    `second` is E W^2, `fan` the terms in one output's sum, 0 where it is no sum.
    """

    of_g: float
    of_t: float
    second: float
    fan: int


class Step(NamedTuple):
    """One layer done: the signal after it, the way back, its weight, and what was assumed.

    `cross` is what it makes of an overlap of two inputs where each by itself stays as it is; None
    where that takes more than the one number.
    """

    after: State
    back: Transfer
    weight: Weight | None = None
    notes: tuple[str, ...] = ()
    method: Literal["mean_field", "not_supported"] = "mean_field"
    steps: "Recurrence | None" = None
    cross: Callable[[float], float] | None = None


class Recurrence(NamedTuple):
    """A recurrent layer at its stationary state.

    `retention` is the factor of the state gradient's RMS per step back in time, `cell` that along
    an LSTM's cell alone (None for others); `horizon` the steps over which the gradient changes by
    a factor e, `cell_horizon` likewise; `correlation` what two inputs' states have in common.
    """

    retention: float
    horizon: float
    cell: float | None
    cell_horizon: float | None
    q: float
    correlation: float


def ten_to(e: float) -> float:
    """Ten to that power; infinite where a float cannot hold it."""
    return 10.0**e if e < 308 else math.inf


def positions(shape: Shape, *, channel_first: bool) -> int:
    """Positions of a feature map, or the steps of [time, features]."""
    if len(shape) == 1:
        return 1
    return math.prod(shape[1:]) if channel_first else shape[0]


def pairs(n: int, m: int) -> float:
    """Write n (n - 1) / (m (m - 1)): what sums over pairs of positions become per pair."""
    return n * (n - 1) / (m * (m - 1)) if m > 1 else 0.0
