"""Mean-field theory of a wide network with random weights: fixed points, chi, critical lines.

Poole et al. 2016 and Schoenholz et al. 2017: pre-activations N(0, q) with
q' = s_w^2 E phi(sqrt(q) z)^2 + s_b^2, gradients' squared norm times chi = s_w^2 E phi'^2 per layer,
where Var W = s_w^2 / fan-in and Var b = s_b^2.
"""

import math

from scipy.optimize import brentq

from gradgauge.analytic.expectations import Pointwise, respond

LARGEST = 1e6  # a variance beyond which a fixed point is not looked for


def variance_fixed_point(phi: Pointwise, *, s_w2: float, s_b2: float) -> float | None:
    """The variance q* a layer maps to itself, by iteration; None where q grows past LARGEST."""
    q, before = 1.0, 0.0
    for _ in range(10_000):
        before, q = q, s_w2 * respond(phi, 0.0, q).second + s_b2
        if q > LARGEST:
            return None
        if abs(q - before) <= 1e-13 * q:
            break
    return q


def chi(phi: Pointwise, *, s_w2: float, q: float) -> float:
    """Factor of the gradient's squared norm per layer at pre-activation variance q."""
    return s_w2 * respond(phi, 0.0, q).slope


def depth_scale(chi_star: float) -> float:
    """Layers over which a squared gradient norm changes by a factor e: 1 / |ln chi|."""
    return math.inf if chi_star == 1.0 else 1.0 / abs(math.log(chi_star))


def critical_variance(phi: Pointwise, *, s_b2: float, low: float, high: float) -> float:
    """The s_w^2 in [low, high] at which chi = 1 at the fixed point: the edge of chaos.

    Raises:
        ValueError: chi - 1 has one sign on the whole interval.
    """

    def excess(s_w2: float) -> float:
        q = variance_fixed_point(phi, s_w2=s_w2, s_b2=s_b2)
        return math.inf if q is None else chi(phi, s_w2=s_w2, q=q) - 1.0

    return float(brentq(excess, low, high, xtol=1e-10))
