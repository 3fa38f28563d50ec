"""Mean-field rules of recurrent cells: the state's moments step by step, and the way back in time.

A cell is one map of its joint state: for an LSTM the squared gradients of (h, c) go back by a 2x2
matrix whose spectral radius is the retention per step (Chen, Pennington & Schoenholz 2018; Gilboa
et al. 2019). Weights are tied over time; for laws without structure that changes nothing at large
width, since the recurrent matrix's spectral radius is its standard deviation times sqrt(n).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gradgauge.analytic.ensemble.kernels import Pair, kernel
from gradgauge.analytic.ensemble.state import (
    Recurrence,
    State,
    Step,
    Transfer,
    Weight,
    positions,
    scale,
)
from gradgauge.analytic.ensemble.weights import Laws
from gradgauge.schema.shape_state import Shape
from gradgauge.schema.spec_tokens import GATES, Gru, Lstm, Recurrent, Rnn

_SETTLED = 1e-10
_MOST = 400  # steps walked one by one; what is beyond is stationary


class Point(NamedTuple):
    """E h h' and E c c' of a cell's state at two points, or at one."""

    h: float
    c: float


class Cell(NamedTuple):
    """What a step does: the next state, and the gradient's way back to state and gates."""

    after: Point
    hh: float
    hc: float
    ch: float
    cc: float
    input_h: float
    input_c: float


@dataclass(frozen=True, slots=True)
class Drive:
    """Variances a gate's sum receives: of one h (n Var R), of one x (n Var W), of the biases."""

    of_h: float
    of_x: float
    bias: float
    mean: float
    forget: float
    phi: str
    back_h: float
    back_x: float


def recurrent(layer: Recurrent, x: State, shape: Shape, laws: Laws) -> Step:
    """All steps of one or two directions."""
    steps = positions(x.shape, channel_first=False) if len(x.shape) > 1 else layer.time_steps or 1
    drive, rule = _drive(layer, x.shape[-1], laws), _CELLS[type(layer)]
    track = _forward(rule, drive, x.q, steps)
    t, o, u = _overlaps(rule, drive, x, track[-1], steps)
    if layer.return_sequences:
        q = math.fsum(c.after.h for c in track) / len(track)
    else:
        q = t = track[-1].after.h
        u = o
    return Step(
        State(shape, 0.0, q, min(t, q), min(o, q), min(u, q)),
        _back(layer, track, steps, x),
        Weight(_param(layer, track, drive, steps), 0.0, drive.of_h / layer.units, layer.units),
        ("tied_weights_independent",) if steps > 1 else (),
        steps=_recurrence(layer, rule, drive, x),
    )


def _drive(layer: Recurrent, features: int, laws: Laws) -> Drive:
    gates, n = GATES[type(layer)], layer.units
    W = laws.recurrent(layer.init, "weight", (gates * n, features), n)
    R = laws.recurrent(layer.init, "recurrent", (gates * n, n), n)
    each = laws.bias(layer.init, (features, gates * n), there=layer.bias)
    times = 1 + layer.recurrent_bias
    r2 = R.second if R.diagonal is None else R.diagonal**2 / (n * gates)
    w2 = W.second if W.diagonal is None else W.diagonal**2 / max(n * gates, features)
    return Drive(
        n * r2,
        features * w2,
        times * (each.second - each.mean**2),
        times * each.mean,
        layer.forget_bias if isinstance(layer, Lstm) else 0.0,
        layer.activation,
        n * r2,
        n * w2,
    )


class Reach(NamedTuple):
    """E h h' and E x x' at two points, and what each point has by itself."""

    state: Point
    own: Point
    x: float
    own_x: float


def _alone(state: Point, x: float) -> Reach:
    return Reach(state, state, x, x)


def _gate(d: Drive, phi: str, m: float, reach: Reach, r: float = 1.0) -> Pair:
    """E f^2 and E f'^2 of a gate whose recurrent sum is scaled by r, or both at two points."""
    v = d.of_h * reach.own.h * r + d.of_x * reach.own_x + d.bias
    k = kernel(phi, (), m, v)
    if reach.own is reach.state and reach.own_x == reach.x:
        return Pair(k.second, k.slope)
    return k.pair(m * m + d.of_h * reach.state.h * r + d.of_x * reach.x + d.bias)


def _rnn(d: Drive, reach: Reach) -> Cell:
    """The state is phi(R h + W x + b)."""
    h = _gate(d, d.phi, d.mean, reach)
    return Cell(Point(h.value, 0.0), d.back_h * h.slope, 0.0, 0.0, 0.0, d.back_x * h.slope, 0.0)


def _lstm(d: Drive, reach: Reach) -> Cell:
    """The cell is c' = f c + i g, h' = o phi(c'); the input and output gates are alike in law."""
    c = reach.state.c
    i, di = _gate(d, "sigmoid", d.mean, reach)
    f, df = _gate(d, "sigmoid", d.mean + d.forget, reach)
    g, dg = _gate(d, d.phi, d.mean, reach)
    after = f * c + i * g
    y, dy = _squashed(d, reach, after)
    through = c * df + g * di + i * dg
    to_sums = y * di + i * dy * through
    return Cell(
        Point(i * y, after),
        d.back_h * to_sums,
        d.back_h * through,
        i * dy * f,
        f,
        d.back_x * to_sums,
        d.back_x * through,
    )


def _squashed(d: Drive, reach: Reach, after: float) -> Pair:
    """Moments of phi at the new cell, taken for a Gaussian of mean zero."""
    if reach.own is reach.state:
        k = kernel(d.phi, (), 0.0, after)
        return Pair(k.second, k.slope)
    alone = Reach(reach.own, reach.own, reach.own_x, reach.own_x)
    one = _lstm(d, alone).after.c
    return kernel(d.phi, (), 0.0, one).pair(min(after, one))


def _gru(d: Drive, reach: Reach) -> Cell:
    """The state is h' = (1 - z) g + z h; the reset gate scales the candidate's recurrent sum."""
    h = reach.state.h
    z, dz = _gate(d, "sigmoid", d.mean, reach)
    less = _gate(d, "sigmoid", -d.mean, reach).value  # 1 - sigmoid(x) = sigmoid(-x)
    g, dg = _gate(d, d.phi, d.mean, reach, z)
    turned = less * dg * dz * d.of_h * h
    to_sums = dz * (h + g) + turned
    back = z + d.back_h * (to_sums + less * dg * z)
    given = d.back_x * (to_sums + less * dg)
    return Cell(Point(less * g + z * h, 0.0), back, 0.0, 0.0, 0.0, given, 0.0)


Rule = Callable[[Drive, Reach], Cell]
_CELLS: dict[type, Rule] = {Rnn: _rnn, Lstm: _lstm, Gru: _gru}


def _forward(rule: Rule, d: Drive, x: float, steps: int) -> list[Cell]:
    """Steps from a state of zeros until they repeat themselves."""
    track, state = [], Point(0.0, 0.0)
    for _ in range(min(steps, _MOST)):
        cell = rule(d, _alone(state, x))
        track.append(cell)
        still = abs(cell.after.h - state.h) <= _SETTLED * cell.after.h
        if still and abs(cell.after.c - state.c) <= _SETTLED * abs(cell.after.c):
            break
        state = cell.after
    return track


def _overlaps(rule: Rule, d: Drive, x: State, last: Cell, steps: int) -> tuple[float, float, float]:
    """E h h' at two steps, of two inputs, of both: fixed points of the map at two points."""
    found = []
    for overlap in (x.t, x.o, x.u):
        state = Point(0.0, 0.0)
        for _ in range(min(steps, 60)):
            before, state = state, rule(d, Reach(state, last.after, overlap, x.q)).after
            if abs(state.h - before.h) <= 1e-6 * last.after.h:
                break
        found.append(state.h)
    return found[0], found[1], found[2]


def _back(layer: Recurrent, track: list[Cell], steps: int, x: State) -> Transfer:
    """E g^2 per element of the input for one of the output, which may be the last step alone."""
    total = (1 + layer.bidirectional) * math.fsum(_by_step(layer, track, steps))
    return scale(total if len(x.shape) == 1 else total / steps)


def _by_step(layer: Recurrent, track: list[Cell], steps: int) -> list[float]:
    """E g^2 at the input of each step, last first, where each shown output has one."""
    h, c, found = 0.0, 0.0, []
    for back in range(steps):
        cell = track[min(steps - 1 - back, len(track) - 1)]
        if back == 0 or layer.return_sequences:
            h += 1.0
        found.append(cell.input_h * h + cell.input_c * c)
        h, c = cell.hh * h + cell.hc * c, cell.ch * h + cell.cc * c
        if back > _MOST:
            tail = found[-1] * (steps - back - 1) if layer.return_sequences else 0.0
            return [*found, tail]
    return found


def _param(layer: Recurrent, track: list[Cell], d: Drive, steps: int) -> float:
    """E g^2 of the recurrent matrix, the steps' contributions taken as independent."""
    total = math.fsum(_by_step(layer, track, steps)) / max(d.back_x, 1e-300)
    return total / GATES[type(layer)] * track[-1].after.h


def radius(cell: Cell) -> float:
    """Spectral radius of the map of squared gradients of (h, c): of their factor per step."""
    trace, det = cell.hh + cell.cc, cell.hh * cell.cc - cell.hc * cell.ch
    return (trace + math.sqrt(max(trace * trace - 4 * det, 0.0))) / 2


def _recurrence(layer: Recurrent, rule: Rule, d: Drive, x: State) -> Recurrence:
    state = Point(0.0, 0.0)
    for _ in range(2000):  # a cell that forgets slowly has not settled within its steps
        after = rule(d, _alone(state, x.q)).after
        if abs(after.h - state.h) + abs(after.c - state.c) <= 1e-12 * (after.h + abs(after.c)):
            break
        state = after
    cell = rule(d, _alone(state, x.q))
    kept = math.sqrt(radius(cell))
    alone = math.sqrt(cell.cc) if isinstance(layer, Lstm) else None
    over = _overlaps(rule, d, x, cell, 60)[1]
    share = over / cell.after.h if cell.after.h > 0 else 1.0
    return Recurrence(
        kept, horizon(kept), alone, None if alone is None else horizon(alone), cell.after.h, share
    )


def horizon(factor: float) -> float:
    """Steps over which a gradient's RMS changes by a factor e."""
    if factor <= 0:
        return 0.0
    return math.inf if factor == 1.0 else 1.0 / abs(math.log(factor))
