"""Softmax of Gaussian logits: how concentrated its weights are, exactly over the draw.

With S = sum_j e^(l_j), 1 / S^2 is the integral of u e^(-u S) over u > 0, so for T independent
logits E sum_j A_j^2 = T int u E[e^(2l - u e^l)] E[e^(-u e^l)]^(T-1) du. For small variance s^2 it
is e^(s^2) / T.
"""

import math
from functools import cache, lru_cache

import numpy as np

from gradgauge.analytic.ensemble.functions import Array
from gradgauge.analytic.ensemble.state import STOP, State, Step, scale

_STEP = 0.4  # of log u: the integrand is analytic about the line, the sum 5e-9 off
_MANY = 32  # logits among which one that is not far below zero is as good as certain
_LARGEST = 8.0  # standard deviations of logits beyond which one weight holds nearly all


@lru_cache(maxsize=8192)
def concentration(s2: float, n: int) -> float:
    """E sum_j A_j^2 over n independent logits of variance `s2`; 1 / n where they are equal."""
    if n == 1 or not math.isfinite(s2):
        return 1.0
    s = min(math.sqrt(max(s2, 0.0)), _LARGEST)
    if s < 1e-4:
        return (1 + s * s * (1 - 1 / n)) / n
    centre = math.log(n) + s * s / 2
    first, last = -centre - 6 * s - 10, 6 + (6 * s if n < _MANY else 0.0)
    points = math.ceil((last - first) / _STEP) + 1
    log_u, step = np.linspace(first, last, points, retstep=True)
    z, w = _gauss(24 if s <= 1.0 else 48)
    x = np.exp(np.minimum(log_u[:, None] + s * z, 700.0))
    gone = np.exp(-x)
    rest = np.log(np.maximum(gone @ w, 1e-300)) * (n - 1)
    f = ((x * x * gone) @ w) * np.exp(rest)
    return min(max(n * float(step) * float(f.sum()), 1 / n), 1.0)


@cache
def _gauss(order: int) -> tuple[Array, Array]:
    """Gauss-Hermite nodes and weights of E f(z), z ~ N(0, 1)."""
    z, w = np.polynomial.hermite_e.hermegauss(order)
    return z, w / math.sqrt(2 * math.pi)


def averaged(s2: float, n: int) -> float:
    """`concentration` averaged over rows of 1 to n entries, as under a causal mask."""
    if n <= 16:
        return math.fsum(concentration(s2, k) for k in range(1, n + 1)) / n
    knots = sorted({1, 2, 4, 8, *(round(n * f) for f in (0.06, 0.15, 0.35, 0.65, 1.0))} - {0})
    shares = np.log([concentration(s2, k) for k in knots if k <= n])
    at = np.arange(1, n + 1)
    return float(np.exp(np.interp(np.log(at), np.log([k for k in knots if k <= n]), shares)).mean())


def softmax(x: State, n: int) -> Step:
    """exp(x) over its sum along n entries; back, g_j becomes A_j (g_j - sum A g)."""
    a = concentration(x.v, n)
    m2 = 1.0 / (n * n)

    def at(overlap: float) -> float:
        rho = max(min((overlap - x.m * x.m) / x.v, 1.0), 0.0) if x.v > 0 else 1.0
        return float((a * n) ** rho / (n * n))

    after = State(x.shape, 1 / n, max(a / n, m2), at(x.t), at(x.o), at(x.u))
    return Step(after, scale(a / n * max(1 - a, 0.0)))


def log_softmax(x: State, n: int) -> Step:
    """The input less the logarithm of the sum of exp(x); back, g_j becomes g_j - A_j sum g."""
    shift = -(math.log(n) + x.v / 2)
    mean = shift

    def at(overlap: float) -> float:
        return overlap - x.m * x.m + mean * mean

    after = State(x.shape, mean, at(x.q), at(x.t), at(x.o), at(x.u))
    return Step(after, scale(max(1 - 2 / n + concentration(x.v, n), 0.0)))


def hard_max(x: State, n: int) -> Step:
    """One where the largest is, and no gradient."""
    return Step(State(x.shape, 1 / n, 1 / n, 1 / (n * n), 1 / (n * n), 1 / (n * n)), STOP)
