"""Mean-field rule of softmax attention: what tokens have in common, and what each keeps.

Weights A mix values as t_v + (q_v - t_v) E sum A^2, so that tokens grow alike (rank collapse, Dong
et al. 2021, Noci et al. 2022); back, what gradients have in common passes and the rest shrinks.
Projections are independent, hence logits independent of values. Two rows of A that share rho of
their logits have E sum A A' between 1 / T and E sum A^2, taken geometrically: exact at both ends,
and for small logits throughout.
"""

import math
from typing import NamedTuple

from gradgauge.analytic.ensemble.dense import Sum, summed, then
from gradgauge.analytic.ensemble.softmax import averaged, concentration
from gradgauge.analytic.ensemble.state import State, Step, Transfer, Weight, blend, scale
from gradgauge.analytic.ensemble.weights import Laws
from gradgauge.schema.shape_state import Shape
from gradgauge.schema.shape_tokens import head_dim
from gradgauge.schema.spec_tokens import Attention


class Attended(NamedTuple):
    """The layer's step on its own input, and what it sends back to a memory (None: the same)."""

    step: Step
    to_memory: Transfer | None


class _Part(NamedTuple):
    """A projection: its output, the way back, E W^2."""

    y: State
    back: Transfer
    second: float


class _Mix(NamedTuple):
    """E sum A^2 of a row, E sum A A' of two rows; of two inputs' rows in place and apart."""

    own: float
    rows: float
    cross: float
    apart: float


def attention(layer: Attention, x: State, memory: State, shape: Shape, laws: Laws) -> Attended:
    """softmax(Q K^T) V, head by head, and the output's projection."""
    d = head_dim(layer, x.shape[-1])
    wide, narrow = layer.heads * d, (layer.kv_heads or layer.heads) * d
    Q = _part(layer, "query", x, wide, laws)
    K = _part(layer, "key", memory, narrow, laws)
    V = _part(layer, "value", memory, narrow, laws)
    factor = _scale(layer, d)
    s2 = factor * factor * d * Q.y.q * max(K.y.q - K.y.t, 0.0)
    mix = _mixed(layer, Q.y, K.y, s2)
    held = _values(V.y, mix, (x.shape[0], wide))
    out = _part(layer, "output", held, shape[-1], laws)
    group = wide / narrow
    to_v = _to_values(mix, x.shape[0], memory.shape[0], group)
    to_q, to_k = _to_logits(layer, Q.y, K.y, V.y, mix, (factor, group))
    through_v = then(V.back, then(to_v, out.back))
    through_q = then(Q.back, then(to_q, out.back))
    through_k = then(K.back, then(to_k, out.back))
    aside = blend(through_k, through_v, 1.0, 1.0)
    places = x.shape[0]
    largest = Weight(places * held.q, places * (places - 1) * held.t, out.second, wide)
    notes = ("independent_logits",)
    if layer.memory is None:
        return Attended(Step(out.y, blend(through_q, aside, 1.0, 1.0), largest, notes), None)
    return Attended(Step(out.y, through_q, largest, notes), aside)


def _part(layer: Attention, part: str, x: State, units: int, laws: Laws) -> _Part:
    own, n = laws.projection(layer, part), x.shape[-1]
    last = layer.bias if layer.output_bias is None or part != "output" else layer.output_bias
    W = laws.matrix(own, (n, units), (n, units))
    s = Sum(n, units, units, W, laws.bias(own, (n, units), there=last))
    y, back, _ = summed(x, s, (*x.shape[:-1], units))
    if layer.qk_norm and part in {"query", "key"} and y.q > 0:
        back = then(back, scale(1 / y.q))
        y = y.scaled(1 / math.sqrt(y.q))
    return _Part(y, back, W.second)


def _scale(layer: Attention, d: int) -> float:
    usual = 1 / d if layer.scaling == "inverse" else 1 / math.sqrt(d)
    return usual if layer.scale is None else layer.scale


def _mixed(layer: Attention, Q: State, K: State, s2: float) -> _Mix:
    n = K.shape[0]
    own = averaged(s2, n) if layer.causal else concentration(s2, n)
    flat = averaged(0.0, n) if layer.causal else 1 / n

    def shared(of_q: float, of_k: float) -> float:
        rho = _share(of_q, Q.q) * of_k
        return float(flat * (own / flat) ** rho)

    both = _share(K.o - K.u, K.q - K.t)
    rows = shared(Q.t, 1.0)
    if layer.causal:  # rows of two lengths share what the longer one gives the shorter
        rows = min(rows, 2 / (n + 1) * rows / flat)
    return _Mix(own, rows, shared(Q.o, both), shared(Q.u, both))


def _share(part: float, whole: float) -> float:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else 1.0


def _values(V: State, mix: _Mix, shape: Shape) -> State:
    idio, cross = V.q - V.t, V.o - V.u
    return State(
        shape,
        V.m,
        V.t + idio * mix.own,
        V.t + idio * mix.rows,
        V.u + cross * mix.cross,
        V.u + cross * mix.apart,
    )


def _to_values(mix: _Mix, rows: int, columns: int, group: float) -> Transfer:
    """g_v,j = sum_i A_ij g_i, at one value and at two."""
    share = group * rows / columns
    if columns == 1:
        return Transfer(share * mix.own, share * (rows - 1) * mix.rows, 0.0, 0.0)
    apart = share / (columns - 1)
    return Transfer(
        share * mix.own,
        share * (rows - 1) * mix.rows,
        apart * (1 - mix.own),
        apart * (rows - 1) * (1 - mix.rows),
    )


def _to_logits(
    layer: Attention, Q: State, K: State, V: State, mix: _Mix, sizes: tuple[float, float]
) -> tuple[Transfer, Transfer]:
    """To queries and keys through dL/dl_ij = A_ij (g_i v_j - sum_k A_ik g_i v_k)."""
    factor, group = sizes
    d = Q.shape[-1] // layer.heads
    spread = factor * factor * d * max(V.q - V.t, 0.0)
    own, rows = mix.own * (1 - mix.own), mix.rows * (1 - mix.own)
    fresh = max(K.q - K.t, 0.0)
    to_q = Transfer(spread * own * fresh, 0.0, 0.0, spread * rows * fresh)
    share = group * Q.shape[0] / K.shape[0]
    n = Q.shape[0] - 1
    to_k = Transfer(share * spread * own * Q.q, share * spread * n * rows * Q.t, 0.0, 0.0)
    return to_q, to_k
