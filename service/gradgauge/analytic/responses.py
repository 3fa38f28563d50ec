"""What a pointwise function does to many Gaussians at once: closed forms, else a table.

One quadrature per element is far too slow for an image; a table over the means and deviations that
occur, filled by quadrature and interpolated, is not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.analytic.expectations import Pointwise, grid, renormalised, with_slope

DIRECT = 600  # elements that are integrated one by one
MEANS, SPREADS = 49, 13  # points of a table, at most
STEP = 0.05  # between them, where fewer do: of means in deviations, of deviations in their log
ORDER = 8  # nodes of each panel
SERIES = 8  # terms of a Hermite series
SKEWED = 1.5  # skewness beyond which one term of its series says no more


@dataclass(frozen=True, slots=True)
class Response:
    """Expectations over x = m + s z, z ~ N(0, 1), of y = phi(x), one per element.

    `mean` E y, `second` E y^2, `rate` E phi', `slope` E phi'^2, `bend` E y (z^2 - 1); and for
    gradients that depend on y: `lean` E phi'^2 z, `carried` E phi'^2 y, `both` E phi'^2 y z.
    """

    mean: Tensor
    second: Tensor
    rate: Tensor
    slope: Tensor
    bend: Tensor
    lean: Tensor
    carried: Tensor
    both: Tensor

    @property
    def var(self) -> Tensor:
        """Var y."""
        return (self.second - self.mean * self.mean).clamp_min(0.0)


def respond(op: str, phi: Pointwise, mean: Tensor, var: Tensor) -> Response:
    """The response of `phi`, in the shape mean and variance broadcast to."""
    shape = np.broadcast_shapes(mean.shape, var.shape)
    mean, var = mean.expand(shape), var.expand(shape)
    if op == "Relu":
        return relu(mean, var)
    flat, spread = mean.reshape(-1), var.reshape(-1).sqrt()
    if flat.numel() <= DIRECT:
        columns = _integrate(phi, flat, spread)
    else:
        columns = _interpolate(phi, flat, spread)
    return Response(*(c.reshape(mean.shape) for c in columns))


def relu(m: Tensor, v: Tensor) -> Response:
    """ReLU of N(m, v): with a = m/s, E y = s (pdf(a) + a Phi(a)) and E phi'^2 = Phi(a)."""
    s = v.sqrt()
    a = torch.where(v > 0, m / s.clamp_min(1e-300), torch.sign(m) * math.inf)
    a = torch.nan_to_num(a, nan=0.0, posinf=40.0, neginf=-40.0).clamp(-40.0, 40.0)
    pdf = torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    cdf = 0.5 * torch.erfc(-a / math.sqrt(2))
    # Deep in the dead zone both terms cancel to nothing: it is never negative.
    mean = (s * pdf + m * cdf).clamp_min(0.0)
    second = ((m * m + v) * cdf + m * s * pdf).clamp_min(0.0)
    return Response(mean, second, cdf, cdf, s * pdf, pdf, mean, s * cdf)


def skewed(r: Response, m: Tensor, v: Tensor, third: Tensor) -> Response:
    """The response of ReLU to a value of third central moment `third`, by one term of Edgeworth's.

    E f gains k E f(x) He_3(z) / 6 with k = third / s^3, and E 1(x > 0) He_n(z) is
    He_(n-1)(-a) pdf(a), E relu(x) He_n(z) is s He_(n-2)(-a) pdf(a) with a = m / s.
    """
    s = v.sqrt().clamp_min(1e-300)
    a = (m / s).clamp(-40.0, 40.0)
    pdf = torch.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    k = (third / s**3).clamp(-SKEWED, SKEWED) / 6
    mean = (r.mean - k * s * a * pdf).clamp_min(0.0)
    rate = (r.rate + k * (a * a - 1) * pdf).clamp(0.0, 1.0)
    second = torch.maximum(r.second + 2 * k * v * pdf, mean * mean)
    bend = r.bend + k * s * (6 * r.rate - (a**3 + 3 * a) * pdf)
    lean, both = r.lean - k * a**3 * pdf, r.both + k * s * (a * a + 2) * pdf
    return Response(mean, second, rate, rate, bend, lean, mean, both)


def relu_third(r: Response, m: Tensor, v: Tensor, third: Tensor | None) -> Tensor:
    """Third central moment behind ReLU: E y^3 = (m^3 + 3 m v) Phi(a) + (m^2 + 2 v) s pdf(a)."""
    held = relu(m, v)
    cube = m * held.second + 2 * v * held.mean
    if third is not None:
        cube = cube + third * held.rate
    return cube - 3 * r.mean * r.second + 2 * r.mean**3


def hermite(phi: Pointwise, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients [SERIES + 1, n]: E phi(x) He_k(z) and E phi'(x) He_k(z), over sqrt(k!)."""
    x, w, z = _nodes(mean.reshape(-1), var.reshape(-1).sqrt())
    y, dy = _evaluate(phi, x)
    w = renormalised(w, y)
    y, dy = torch.nan_to_num(y), torch.nan_to_num(dy)
    before, now = torch.zeros_like(z), torch.ones_like(z)
    values, slopes = [], []
    for k in range(SERIES + 1):
        norm = math.sqrt(math.factorial(k))
        values.append((w * y * now).sum(1) / norm)
        slopes.append((w * dy * now).sum(1) / norm)
        before, now = now, z * now - k * before
    return torch.stack(values), torch.stack(slopes)


def pairwise(coefficients: Tensor, total: Tensor, rho: Tensor) -> Tensor:
    """E f(x_i) f(x_j) from Mehler's series; `total` E f^2 on the diagonal, its rest at the end."""
    found = torch.zeros_like(rho)
    power = torch.ones_like(rho)
    for row in coefficients:
        found = found + row[:, None] * row[None, :] * power
        power = power * rho
    rest = (total - coefficients.square().sum(0)).clamp_min(0.0).sqrt()
    found = found + rest[:, None] * rest[None, :] * power
    found.diagonal().copy_(total)
    return found


def _integrate(phi: Pointwise, mean: Tensor, spread: Tensor) -> list[Tensor]:
    x, w, z = _nodes(mean, spread)
    y, dy = _evaluate(phi, x)
    w = renormalised(w, y)
    y, dy = torch.nan_to_num(y), torch.nan_to_num(dy)
    square = dy * dy
    terms = (y, y * y, dy, square, y * (z * z - 1), square * z, square * y, square * y * z)
    return [(w * term).sum(1) for term in terms]


def _nodes(mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return grid(mean, spread, order=ORDER)


def _evaluate(phi: Pointwise, x: Tensor) -> tuple[Tensor, Tensor]:
    y, dy = with_slope(phi, x)
    return y.to(torch.float64), dy.to(torch.float64)


def _interpolate(phi: Pointwise, mean: Tensor, spread: Tensor) -> list[Tensor]:
    """Bilinear in the mean and in the logarithm of the deviation."""
    size = spread.clamp_min(1e-30 + 1e-9 * float(spread.max()))
    log = size.log()
    low, high = float(log.min()), float(log.max())
    first, last = float(mean.min()), float(mean.max())
    rows = _points((high - low) / STEP, SPREADS)
    columns = _points((last - first) / (STEP * math.exp(low)), MEANS)
    means = torch.linspace(first, last, columns, dtype=torch.float64)
    spreads = torch.linspace(low, high, rows, dtype=torch.float64).exp()
    table = _integrate(phi, means.repeat(rows), spreads[:, None].expand(rows, columns).reshape(-1))
    places = [_place(mean, first, last, columns), _place(log, low, high, rows)]
    held = torch.stack(table).reshape(1, len(table), rows, columns)
    at = torch.stack(places, -1)[None, None]
    made = functional.grid_sample(held, at, padding_mode="border", align_corners=True)
    return list(made[0, :, 0])


def _points(steps: float, most: int) -> int:
    """Points of one side of a table so many steps long."""
    return 1 if steps < 1e-7 else max(min(math.ceil(steps) + 1, most), 2)


def _place(x: Tensor, low: float, high: float, n: int) -> Tensor:
    """Where x lies between the first point of a table, -1, and the last, 1."""
    return torch.zeros_like(x) if n == 1 else (x - low) * (2 / (high - low)) - 1


Responder = Callable[[str, Pointwise, Tensor, Tensor], Response]
