"""Mean-field rules of weighted sums and of functions of one element.

A sum of n terms with Var W = s^2: q' = n (s^2 q + Wm^2 (v + n m^2)) + E b^2, and the same at two
points; back, E g^2 at an input is n_out E W^2 times that at an output (Poole et al. 2016,
Schoenholz et al. 2017).
"""

from collections.abc import Callable
from typing import NamedTuple

from gradgauge.analytic.ensemble.kernels import Kernel, Params, kernel
from gradgauge.analytic.ensemble.softmax import hard_max, log_softmax, softmax
from gradgauge.analytic.ensemble.state import (
    State,
    Step,
    Transfer,
    Weight,
    blend,
    positions,
    scale,
)
from gradgauge.analytic.ensemble.weights import Bias, Laws, Matrix
from gradgauge.schema.activations import ACTIVATIONS
from gradgauge.schema.laws import InitSet
from gradgauge.schema.shape_state import Shape
from gradgauge.schema.spec import ActivationLayer, Dense, Gated
from gradgauge.schema.spec_tokens import Unembedding

NONZERO_MEAN = "weights_of_nonzero_mean"


class Sum(NamedTuple):
    """A weighted sum: terms of an output, uses of an input, and of each position's gradient."""

    terms: float
    uses: float
    uses_common: float
    W: Matrix
    b: Bias


Map = Callable[[float], float]


def summed(x: State, s: Sum, shape: Shape) -> tuple[State, Transfer, Map]:
    """The signal after a weighted sum, the way back, and what it makes of an overlap."""
    W, b = s.W, s.b
    if W.diagonal is not None:
        return _copied(x, s, shape, W.diagonal)
    base = s.terms * W.variance
    coherent = (s.terms * W.mean) ** 2 * x.m * x.m if W.mean else 0.0
    own = s.terms * W.mean * W.mean

    def at(overlap: float) -> float:
        return base * overlap + coherent + own * (overlap - x.m * x.m) + b.second

    m = s.terms * W.mean * x.m + b.mean
    q, o = at(x.q), at(x.o)
    alone = len(x.shape) == 1
    after = State(shape, m, q, q if alone else at(x.t), o, o if alone else at(x.u))
    return after, scale(s.uses * W.second, s.uses_common * W.second), at


def _copied(x: State, s: Sum, shape: Shape, gain: float) -> tuple[State, Transfer, Map]:
    """The unit matrix times `gain`, rows of zeros where it is not square."""
    share = min(x.shape[-1] / shape[-1], 1.0) if len(x.shape) < 3 else min(x.shape[0] / shape[0], 1)
    back = gain * gain * share * s.uses / max(s.terms * share, 1e-300)
    y = x.scaled(gain)
    moved = [share * held + s.b.second for held in (y.q, y.t, y.o, y.u)]
    after = State(shape, share * y.m + s.b.mean, *moved)
    return after, scale(back), lambda overlap: share * gain * gain * overlap + s.b.second


def dense(layer: Dense, x: State, shape: Shape, laws: Laws) -> Step:
    """X W + b on the last axis."""
    return projected(x, shape, layer.init, laws, bias=layer.bias)


def projected(x: State, shape: Shape, own: InitSet, laws: Laws, *, bias: bool) -> Step:
    """A matrix on the last axis, laid out as the graph lays it out."""
    n, k = x.shape[-1], shape[-1]
    W = laws.matrix(own, (k, n) if len(x.shape) == 1 else (n, k), (n, k))
    s = Sum(n, k, k, W, laws.bias(own, (n, k), there=bias))
    after, back, cross = summed(x, s, shape)
    second = W.second if W.diagonal is None else W.diagonal**2 / max(n, k)
    return Step(after, back, weight(x, after, second, n), _notes(W), cross=cross)


def weight(x: State, after: State, second: float, fan: int) -> Weight:
    """The gradient of a matrix that every position shares."""
    places = positions(after.shape, channel_first=False)
    return Weight(places * x.q, places * (places - 1) * x.t, second, fan)


def _notes(W: Matrix) -> tuple[str, ...]:
    return (NONZERO_MEAN,) if W.mean else ()


def unembedding(layer: Unembedding, x: State, shape: Shape, table: Bias) -> Step:
    """Logits by the embedding's table."""
    W = Matrix(0.0, table.second * layer.scale**2)
    after, back, _ = summed(x, Sum(x.shape[-1], shape[-1], shape[-1], W, Bias(0.0, 0.0)), shape)
    return Step(after, back, None, ("tied_weights_independent",))


def activation(layer: ActivationLayer, x: State) -> Step:
    """An element's function of a Gaussian, or a softmax along an axis."""
    name = layer.function
    if name in _ALONG:
        n = x.shape[-1 if layer.axis is None else layer.axis]
        return _ALONG[name](x, n)
    return pointwise(x, kernel(name, parameters(layer), x.m, x.v))


_ALONG = {"softmax": softmax, "log_softmax": log_softmax, "hardmax": hard_max}


def parameters(layer: ActivationLayer) -> Params:
    """The function's parameters, hashable."""
    named = ACTIVATIONS[layer.function].params
    return tuple((name, layer.parameter(name)) for name in named) if named else ()


def pointwise(x: State, k: Kernel) -> Step:
    """Both passes through a function of one element."""
    if len(x.shape) == 1:
        o = k.value(x.o)
        after = State(x.shape, k.mean, k.second, k.second, o, o)
        return Step(after, scale(k.slope), cross=k.value)
    near = k.pair(x.t)
    after = State(x.shape, k.mean, k.second, near.value, k.value(x.o), k.value(x.u))
    back = scale(k.slope, near.slope)
    return Step(after, back, cross=k.value)


def gated(layer: Gated, x: State, shape: Shape, laws: Laws) -> Step:
    """f(x W) times (x V), the two sums independent."""
    one = projected(x, shape, layer.init, laws, bias=layer.bias)
    phi = "identity" if layer.function == "identity" else layer.function
    given = ActivationLayer(type="activation", function=phi)
    if layer.approximate is not None:
        given = given.model_copy(update={"approximate": layer.approximate})
    gate = activation(given, one.after)
    f, y = gate.after, one.after
    after = State(shape, f.m * y.m, f.q * y.q, f.t * y.t, f.o * y.o, f.u * y.u)
    to_gate = scale(y.q * gate.back.gg, y.t * gate.back.tt)
    local = blend(to_gate, scale(f.q, f.t), 1.0, 1.0)
    held = one.weight
    assert held is not None  # noqa: S101  # a projection has a matrix
    largest = Weight(held.of_g * f.q, held.of_t * f.t, held.second, held.fan)
    return Step(after, then(one.back, local), largest, one.notes)


def then(first: Transfer, last: Transfer) -> Transfer:
    """Back through `last`, then through `first`."""
    a, b = first, last
    return Transfer(
        a.gg * b.gg + a.gt * b.tg,
        a.gg * b.gt + a.gt * b.tt,
        a.tg * b.gg + a.tt * b.tg,
        a.tg * b.gt + a.tt * b.tt,
    )


def added(parts: list[tuple[float, State]]) -> State:
    """A weighted sum of signals whose fluctuations are independent."""
    first = parts[0][1]
    m = sum(a * x.m for a, x in parts)
    means = [a * x.m for a, x in parts]
    cross = m * m - sum(held * held for held in means)
    sums = [
        sum(a * a * held for (a, _), held in zip(parts, column, strict=True)) + cross
        for column in zip(*((x.q, x.t, x.o, x.u) for _, x in parts), strict=True)
    ]
    return State(first.shape, m, *sums)
