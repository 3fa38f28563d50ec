"""Mean-field rules of embeddings, positions, learned tokens, and of layers that move values."""

import math
from functools import lru_cache

import numpy as np

from gradgauge.analytic.ensemble.state import (
    PASS,
    STOP,
    State,
    Step,
    Weight,
    pairs,
    scale,
)
from gradgauge.analytic.ensemble.weights import Laws
from gradgauge.schema.shape_state import Shape
from gradgauge.schema.spec import InputSpec
from gradgauge.schema.spec_tokens import (
    ClassToken,
    Embedding,
    PositionalEmbedding,
    SegmentEmbedding,
    Select,
)


def given(spec: InputSpec) -> State:
    """The input: elements independent of each other."""
    if spec.distribution == "integers":
        n = spec.high - spec.low
        m, v = (spec.low + spec.high - 1) / 2, (n * n - 1) / 12
    else:
        m, v = spec.mean, spec.scale**2
    x = State(spec.shape, m, v + m * m, m * m, m * m, m * m)
    return x.vector(spec.shape) if len(spec.shape) == 1 else x


def embedding(layer: Embedding, low: int, high: int, shape: Shape, laws: Laws) -> Step:
    """Rows of a table; two ids are the same one time in as many as there are."""
    table = laws.table(layer.init, (layer.entries, layer.units))
    same = 1 / (high - low)
    m2 = table.mean * table.mean
    two = m2 + (table.second - m2) * same
    after = State(shape, table.mean, table.second, two, two, two)
    return Step(after, STOP, Weight(shape[0] * same, 0.0, table.second, 0))


def positional(layer: PositionalEmbedding, x: State, laws: Laws) -> Step:
    """A vector of each step's own, the same for all inputs."""
    if layer.kind == "sinusoidal":
        two = _sines(x.shape[0], x.shape[1])
        return _shifted(x, 0.0, 0.5, two, None)
    rows = layer.positions or x.shape[0]
    table = laws.table(layer.init, (rows, x.shape[1]))
    weight = Weight(x.shape[0] / rows, 0.0, table.second, 0)
    return _shifted(x, table.mean, table.second, table.mean**2, weight)


def _shifted(x: State, m: float, q: float, t: float, weight: Weight | None) -> Step:
    cross = 2 * x.m * m
    after = State(
        x.shape, x.m + m, x.q + q + cross, x.t + t + cross, x.o + q + cross, x.u + t + cross
    )
    return Step(after, PASS, weight)


@lru_cache(maxsize=64)
def _sines(steps: int, features: int) -> float:
    """Mean of cos(w (i - j)) / 2 over frequencies and pairs of steps (Vaswani et al. 2017)."""
    if steps < 2:
        return 0.5
    w = 10000.0 ** (-np.arange(0, features, 2) / features)
    sums = (np.sin(steps * w / 2) / np.sin(w / 2)) ** 2
    return float(((sums - steps) / (steps * (steps - 1))).mean() / 2)


def segment(layer: SegmentEmbedding, x: State, laws: Laws) -> Step:
    """One vector added to every step of every input."""
    table = laws.table(layer.init, (layer.segments, x.shape[1]))
    places = x.shape[0] / layer.segments
    weight = Weight(places, places * (x.shape[0] - 1), table.second, 0)
    return _shifted(x, table.mean, table.second, table.second, weight)


def class_token(layer: ClassToken, x: State, shape: Shape, laws: Laws) -> Step:
    """Learned steps in front."""
    table = laws.table(layer.init, (layer.count, x.shape[1]))
    total, k = shape[0], layer.count
    old, new = (total - k) / total, k / total
    apart = pairs(total - k, total)
    rest = (1 - apart) * table.mean * x.m
    after = State(
        shape,
        old * x.m + new * table.mean,
        old * x.q + new * table.second,
        apart * x.t + rest,
        old * x.o + new * table.second,
        apart * x.u + rest,
    )
    return Step(after, PASS, Weight(1.0, 0.0, table.second, 0))


def select(_: Select, x: State, shape: Shape) -> Step:
    """One step of many: the others get no gradient."""
    after = x.vector(shape) if len(shape) == 1 else x._replace(shape=shape)
    return Step(after, scale(1 / x.shape[0], 0.0))


def rearranged(x: State, shape: Shape) -> Step:
    """The same values in another order or shape; positions stop being comparable."""
    if shape == x.shape:
        return Step(x, PASS)
    m2 = x.m * x.m
    if len(shape) == 1:
        return Step(State(shape, x.m, x.q, x.q, x.o, x.o), scale(1.0, 0.0))
    after = State(shape, x.m, x.q, m2, x.o, m2)
    return Step(after, scale(1.0, 0.0), None, ("positions_independent",))


def joined(parts: list[State], shape: Shape) -> State:
    """Side by side: every element keeps its moments, so that the mean is by size."""
    total = math.fsum(part.size for part in parts)
    mean = [
        math.fsum(part.size * held for part, held in zip(parts, column, strict=True)) / total
        for column in zip(*((x.m, x.q, x.t, x.o, x.u) for x in parts), strict=True)
    ]
    return State(shape, *mean)
