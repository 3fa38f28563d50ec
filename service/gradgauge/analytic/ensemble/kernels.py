"""Gaussian moments of an activation, at one point and at two: the maps mean-field theory iterates.

For x = m + sqrt(v) z the function is expanded in Hermite polynomials, phi(x) = sum_k a_k h_k(z);
at two points of correlation rho then E phi(x) phi(y) = sum_k a_k^2 rho^k (Mehler), and the slope is
its derivative. What the first terms leave is put into one last term whose power is chosen so that
value and slope at rho = 1 are exact; a function with jumps has its slope expanded by itself. ReLU
and its leaky kin have closed forms (Cho & Saul 2009).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gradgauge.analytic.ensemble.functions import FUNCTIONS, ROOT_2PI, Array

TERMS = 48
_EDGES = (1e-3, 4e-3, 0.016, 0.06, 0.2, 0.5, 1.0, 1.6, 2.3, 3.2, 4.2, 5.4, 6.8, 8.4, 10.0)
_ORDER = 8
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_ORDER)
_POWERS = np.arange(float(TERMS))
_NEAR = 50.0  # nodes that lie nearer to zero make no function without parameters overflow
_FLAT = 1e-100  # a correlation that no power but the first is left of
_SLOPES = {"relu": 0.0, "identity": 1.0, "leaky_relu": None, "prelu": None}

Grid = tuple[Array, Array, Array, Array]
Params = tuple[tuple[str, float | int | str | None], ...]


class Pair(NamedTuple):
    """E phi(x) phi(y) and E phi'(x) phi'(y) at two points."""

    value: float
    slope: float


class Series(NamedTuple):
    """a_k^2 and the powers k they belong to; k a_k^2 or, of a function with jumps, v b_k^2.

    What is left of E phi^2 is `rest`, with one `power`.
    """

    powers: Array
    squares: Array
    steeps: Array | None
    rest: float
    power: float


class Kernel(NamedTuple):
    """E phi, E phi^2 and E phi'^2 of x ~ N(m, v), and what two such points need."""

    m: float
    v: float
    mean: float
    second: float
    slope: float
    series: Series | None = None
    leak: float | None = None

    def pair(self, overlap: float) -> Pair:
        """At two points with E[x y] = overlap."""
        rho = self._rho(overlap)
        if rho == 1.0:
            return Pair(self.second, self.slope)
        if self.leak is not None:
            return _rectified_pair(self.v, rho, self.leak)
        return self._expansion(rho)

    def value(self, overlap: float) -> float:
        """The first of the pair alone."""
        rho = self._rho(overlap)
        if self.series is None or rho == 1.0:
            return self.pair(overlap).value
        return _value(self.series, rho)

    def _rho(self, overlap: float) -> float:
        """Their correlation; 1 where no variance is known."""
        if self.v <= 0 or not math.isfinite(self.v) or not math.isfinite(self.second):
            return 1.0
        return min(max((overlap - self.m * self.m) / self.v, -1.0), 1.0)

    def _expansion(self, rho: float) -> Pair:
        """Of the series; its slope is its derivative, k a_k^2 rho^(k - 1) / v."""
        assert self.series is not None  # noqa: S101  # every kernel has this or a closed form
        powers, squares, steeps, rest, power = self.series
        at = rho**powers
        if steeps is not None:
            left = (self.slope * self.v - float(steeps.sum())) * abs(rho) ** TERMS
            high = rest * abs(rho) ** TERMS
            return Pair(float(squares.dot(at)) + high, (float(steeps.dot(at)) + left) / self.v)
        if abs(rho) < _FLAT:
            first = float(squares[powers == 1.0].sum())
            return Pair(float(squares.dot(at)), first / self.v)
        high = rest * abs(rho) ** power
        steep = float((powers * squares).dot(at)) / rho + power * high / abs(rho)
        return Pair(float(squares.dot(at)) + high, steep / self.v)


def _value(series: Series, rho: float) -> float:
    value = float(series.squares.dot(rho**series.powers))
    return value + series.rest * abs(rho) ** series.power if series.rest else value


@lru_cache(maxsize=65536)
def kernel(function: str, params: Params, m: float, v: float) -> Kernel:
    """The moments of `function` at N(m, v)."""
    leak = _leak(function, params)
    if v <= 0 or not math.isfinite(m) or (leak is None and not math.isfinite(v)):
        return _at_a_point(function, params, m, v)
    if leak is not None and (m == 0 or not math.isfinite(v)):
        mean = (1 - leak) * math.sqrt(v) / ROOT_2PI
        half = (1 + leak * leak) / 2
        return Kernel(0.0, v, mean, half * v, half, leak=leak)
    if not params and abs(m) + 10.0 * math.sqrt(v) < _NEAR:
        return _expanded(function, params, m, v)
    with np.errstate(all="ignore"):  # what overflows is infinite, and said to be
        return _expanded(function, params, m, v)


def _leak(function: str, params: Params) -> float | None:
    if function not in _SLOPES:
        return None
    fixed = _SLOPES[function]
    return float(dict(params)["alpha"] or 0.0) if fixed is None else fixed


def _at_a_point(function: str, params: Params, m: float, v: float) -> Kernel:
    """No variance: phi(m) itself; no finite moments: none of it is known."""
    if not (math.isfinite(v) and math.isfinite(m)):
        return Kernel(m, v, math.inf, math.inf, math.inf)
    x, p = np.array([m]), dict(params)
    y, dy = FUNCTIONS[function].value(x, p)[0], FUNCTIONS[function].slope(x, p)[0]
    return Kernel(m, 0.0, float(y), float(y * y), float(dy * dy))


def _rectified_pair(v: float, rho: float, leak: float) -> Pair:
    """alpha-leaky rectifier = (1 - alpha) relu + alpha x; arc-cosine kernels of order 1 and 0."""
    angle = math.acos(rho)
    one = v * (math.sqrt(1 - rho * rho) + (math.pi - angle) * rho) / (2 * math.pi)
    zero = (math.pi - angle) / (2 * math.pi)
    steep = 1 - leak
    value = steep * steep * one + leak * steep * rho * v + leak * leak * rho * v
    return Pair(value, steep * steep * zero + leak * steep + leak * leak)


def _expanded(function: str, params: Params, m: float, v: float) -> Kernel:
    s, p = math.sqrt(v), dict(params)
    phi = FUNCTIONS[function]
    bends = [(k - m) / s for k in phi.kinks(p)]
    centre = -m / s if abs(m) < 6 * s else 0.0
    breaks = tuple(b for b in bends if b != centre and abs(b) < 9.0)
    parity = phi.parity if m == 0 else None
    z, basis, w, powers = _grid(centre, breaks) if parity is None else _half(parity)
    x = m + s * z
    y, dy = phi.value(x, p), phi.slope(x, p)
    a = basis.dot(y)  # of arrays this short `@` takes twice as long
    second, slope = float(w.dot(y * y)), float(w.dot(dy * dy))
    if not math.isfinite(second + slope):
        return Kernel(m, v, math.inf, math.inf, math.inf)
    mean = 0.0 if parity == 1 else float(a[0])
    squares = a * a
    rest = max(second - float(a.dot(a)), 0.0)
    if phi.jumps:  # the derivative of the overlap map would count the jump as a slope
        return Kernel(
            m, v, mean, second, slope, Series(powers, squares, v * basis.dot(dy) ** 2, rest, TERMS)
        )
    if rest <= 1e-14 * second:
        return Kernel(m, v, mean, second, slope, Series(powers, squares, None, 0.0, TERMS))
    power = max((v * slope - float(powers.dot(squares))) / rest, TERMS)
    return Kernel(m, v, mean, second, slope, Series(powers, squares, None, rest, power))


@lru_cache(maxsize=2)
def _half(parity: int) -> Grid:
    """The grid about zero for odd (1) or even (0) functions: their own powers, z > 0 twice."""
    z, basis, w, powers = _grid(0.0, ())
    up = z > 0
    rows = 2 * basis[parity::2, up]
    return z[up], np.ascontiguousarray(rows), 2 * w[up], np.ascontiguousarray(powers[parity::2])


@lru_cache(maxsize=512)
def _grid(centre: float, breaks: tuple[float, ...]) -> Grid:
    """Nodes z, weighted Hermite polynomials w h_k(z) by rows, weights, k: fine about `centre`."""
    near = [centre + sign * edge for edge in _EDGES for sign in (-1, 1)]
    wide = [-10.0, -8.4, -5.0, -3.0, -1.5, 0.0, 1.5, 3.0, 5.0, 8.4, 10.0] if centre else []
    edges = np.unique(np.clip([*near, *wide, centre, *breaks], -10.0, 10.0))
    half = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half + half * _NODES).ravel()
    w = (half * _WEIGHTS).ravel() * np.exp(-0.5 * z * z) / ROOT_2PI
    h = np.empty((TERMS, len(z)))
    h[0], h[1] = 1.0, z
    for k in range(2, TERMS):
        h[k] = (z * h[k - 1] - math.sqrt(k - 1) * h[k - 2]) / math.sqrt(k)
    return z, h * w, w, _POWERS
