"""Gaussian expectations of any pointwise function, of its slope, and of both at two points.

Closed forms where there are any (THEORY section 1), else Gauss-Legendre panels in float64, broken
where activations have their kinks, so that a saturated sigmoid is integrated as well as a ReLU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

Pointwise = Callable[[torch.Tensor], torch.Tensor]

REACH = 9.0  # standard deviations; the mass beyond is 2e-19
# Where activations bend, in their own units: ReLU 0, hard sigmoids 1, 2.5, 3, ReLU6 6.
_BENDS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
BREAKS = torch.tensor([*(-b for b in reversed(_BENDS)), 0.0, *_BENDS], dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Response:
    """What a pointwise function does to x ~ N(m, v): E phi, E phi^2 and E phi'^2."""

    mean: float
    second: float
    slope: float


@dataclass(frozen=True, slots=True)
class Pair:
    """What it does to two such points of overlap E[x y] = o: E phi(x)phi(y), E phi'(x)phi'(y)."""

    value: float
    slope: float


def respond(phi: Pointwise, m: float, v: float) -> Response:
    """Response of `phi` by quadrature; regions where `phi` is NaN are left out."""
    x, w = _grid(torch.tensor([m], dtype=torch.float64), math.sqrt(v), order=12)
    y, dy = with_slope(phi, x)
    w = renormalised(w, y)
    y, dy = torch.nan_to_num(y), torch.nan_to_num(dy)
    return Response(float((w * y).sum()), float((w * y * y).sum()), float((w * dy * dy).sum()))


def respond_pair(phi: Pointwise, m: float, v: float, o: float) -> Pair:
    """Overlap map of `phi` by nested quadrature, the correlation (o - m^2) / v kept in [0, 1]."""
    rho = _correlation(m, v, o)
    if rho > 1.0 - 1e-12:
        alone = respond(phi, m, v)
        return Pair(alone.second, alone.slope)
    if rho <= 0.0:
        return _independent(phi, m, v)
    s = math.sqrt(v)
    centre, w = _grid(torch.tensor([m], dtype=torch.float64), s * math.sqrt(rho), order=5)
    x, inner = _grid(centre[0], s * math.sqrt(1.0 - rho), order=5)
    y, dy = with_slope(phi, x)
    inner = renormalised(inner, y)
    value = (inner * torch.nan_to_num(y)).sum(1)
    slope = (inner * torch.nan_to_num(dy)).sum(1)
    return Pair(float((w[0] * value * value).sum()), float((w[0] * slope * slope).sum()))


def relu(m: float, v: float) -> Response:
    """ReLU of N(m, v) in closed form: with a = m/s, E phi = s(pdf(a) + a Phi(a))."""
    if v <= 0.0:
        return Response(max(m, 0.0), max(m, 0.0) ** 2, float(m > 0))
    s = math.sqrt(v)
    a = m / s
    pdf = math.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    cdf = 0.5 * math.erfc(-a / math.sqrt(2))
    # Deep in the dead zone both terms cancel to nothing: Mills' ratio says it is never negative.
    mean = max(s * (pdf + a * cdf), 0.0)
    return Response(mean, max((m * m + v) * cdf + m * s * pdf, 0.0), cdf)


def relu_pair(q: float, o: float) -> Pair:
    """ReLU at mean zero: the arc-cosine kernels of order 1 and 0 (Cho and Saul 2009)."""
    c = min(max(o / q, -1.0), 1.0) if q > 0 else 1.0
    angle = math.acos(c)
    value = (math.sqrt(max(1 - c * c, 0.0)) + (math.pi - angle) * c) / math.pi
    return Pair(0.5 * q * value, 0.5 * (1 - angle / math.pi))


def erf(q: float) -> Response:
    """Erf at mean zero (Williams 1998)."""
    second = 2 / math.pi * math.asin(2 * q / (1 + 2 * q))
    return Response(0.0, second, 4 / (math.pi * math.sqrt(1 + 4 * q)))


def erf_pair(q: float, o: float) -> Pair:
    """Erf at two points of mean zero and equal variance."""
    value = 2 / math.pi * math.asin(min(max(2 * o / (1 + 2 * q), -1.0), 1.0))
    return Pair(value, 4 / (math.pi * math.sqrt(max((1 + 2 * q) ** 2 - 4 * o * o, 1e-300))))


def _correlation(m: float, v: float, o: float) -> float:
    return min(max((o - m * m) / v, 0.0), 1.0) if v > 0 else 1.0


def _independent(phi: Pointwise, m: float, v: float) -> Pair:
    x, w = _grid(torch.tensor([m], dtype=torch.float64), math.sqrt(v), order=12)
    y, dy = with_slope(phi, x)
    w = renormalised(w, y)
    value, slope = (w * torch.nan_to_num(y)).sum(), (w * torch.nan_to_num(dy)).sum()
    return Pair(float(value) ** 2, float(slope) ** 2)


def with_slope(phi: Pointwise, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The function and its slope at every x."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        y = phi(leaf)
        if not y.requires_grad:  # a step function: its slope is zero almost everywhere
            return y.detach().to(torch.float64), torch.zeros_like(x)
        (slope,) = torch.autograd.grad(y.sum(), leaf)
    return y.detach(), slope


def renormalised(w: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weights of the nodes at which the function has a value, adding up to one."""
    valid = torch.where(torch.isfinite(y), w, torch.zeros_like(w))
    return valid / valid.sum(-1, keepdim=True).clamp_min(1e-300)


def grid(
    m: torch.Tensor, s: torch.Tensor, *, order: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nodes x and weights for E f(N(m_k, s_k^2)), one row per k, and the nodes' z.

    Panels of a deviation each, broken where an activation may bend.
    """
    coarse = torch.arange(-REACH, REACH + 0.5, 1.0, dtype=torch.float64)
    bends = ((BREAKS - m[:, None]) / s[:, None].clamp_min(1e-300)).clamp(-REACH, REACH)
    edges = torch.cat([coarse.expand(len(m), -1), bends], dim=1).sort(dim=1).values
    nodes, weights = _panel(order)
    half = (edges[:, 1:] - edges[:, :-1])[:, :, None] / 2
    z = (edges[:, :-1, None] + half + half * nodes).flatten(1)
    pdf = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return m[:, None] + s[:, None] * z, (half * weights).flatten(1) * pdf, z


@cache
def _panel(order: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gauss-Legendre nodes and weights on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


def _grid(m: torch.Tensor, s: float, *, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, w, _ = grid(m, torch.full_like(m, s), order=order)
    return x, w
