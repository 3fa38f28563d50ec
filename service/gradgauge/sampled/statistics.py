"""Sizes, quantiles and intervals that neither underflow nor overflow: everything in log10."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from gradgauge.schema.profile import Interval, Quantiles

LEVEL = 0.95
RESAMPLES = 400


def rows_of(x: Tensor, axis: int | None, rows: int) -> Tensor:
    """`x` as (rows, rest): one row per input, or a single row where it has no batch axis."""
    if axis is None:
        return x.reshape(1, -1)
    return x.movedim(axis, 0).reshape(rows, -1)


def log10_rms(x: Tensor) -> Tensor:
    """log10 of each row's root mean square, shape (rows,); -inf for a row of exact zeros.

    Squares are taken of the row divided by its largest magnitude, in float64, so a row at 1e-300
    is measured and not rounded to zero.
    """
    x = x.detach().double()
    if x.shape[1] == 0:
        return torch.full((x.shape[0],), -math.inf, dtype=torch.float64, device=x.device)
    top = x.abs().amax(dim=1)
    safe = torch.where((top > 0) & top.isfinite(), top, torch.ones_like(top))
    mean = (x / safe[:, None]).square().mean(dim=1)
    return torch.log10(top) + 0.5 * torch.log10(torch.where(top > 0, mean, torch.ones_like(mean)))


def pairwise_cosine(x: Tensor) -> float | None:
    """Mean cosine over all pairs of rows; None for fewer than two rows or a zero row."""
    x = x.detach().double()
    if x.shape[0] < 2:
        return None
    x = x / x.abs().amax().clamp_min(torch.finfo(torch.float64).tiny)
    norms = x.norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()) or not bool(norms.isfinite().all()):
        return None
    total = (x / norms).sum(dim=0).square().sum()
    count = x.shape[0]
    return float((total - count) / (count * (count - 1)))


def quantiles(values: np.ndarray) -> Quantiles | None:
    """Quantiles of log10 values; None where none is finite, q50 alone where there is one.

    A sample with -inf entries (inputs whose gradient is exactly zero) keeps them below all others;
    a quantile that falls on one is None.
    """
    held = values[~np.isnan(values)]
    if held.size == 0 or not np.isfinite(held).any():
        return None
    if held.size == 1:
        return Quantiles(None, None, float(held[0]), None, None)
    found = np.quantile(held, [0.05, 0.25, 0.5, 0.75, 0.95], method="nearest")
    return Quantiles(*(float(q) if np.isfinite(q) else None for q in found))


def median_interval(values: np.ndarray, seed: int) -> Interval | None:
    """Percentile bootstrap interval of the median over inputs and cotangents."""
    held = values[np.isfinite(values)]
    if held.size < 8:
        return t_interval(held)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, held.size, (RESAMPLES, held.size))
    medians = np.median(held[picks], axis=1)
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), LEVEL, "bootstrap_percentile")


def median_halfwidth(values: np.ndarray) -> float:
    """Half the 95 % order-statistic interval of the median; infinite for fewer than 20 values."""
    held = np.sort(values[np.isfinite(values)])
    if held.size < 20:
        return math.inf
    reach = 0.98 * math.sqrt(held.size)
    low, high = int(held.size / 2 - reach), math.ceil(held.size / 2 + reach) - 1
    return float(held[high] - held[low]) / 2


def t_interval(values: np.ndarray) -> Interval | None:
    """Student's interval of a few log10 values, about their median; None below three."""
    held = values[np.isfinite(values)]
    if held.size < 3:
        return None
    point = float(student.ppf((1 + LEVEL) / 2, held.size - 1))
    half = point * float(held.std(ddof=1)) / math.sqrt(held.size)
    middle = float(np.median(held))
    return Interval(middle - half, middle + half, LEVEL, "student_t")


def decades_slope(y: Sequence[float | None]) -> float | None:
    """Least-squares slope of `y` against its index; None with fewer than three finite values."""
    points = [(i, v) for i, v in enumerate(y) if v is not None and math.isfinite(v)]
    if len(points) < 3:
        return None
    x, v = np.array(points).T
    return float(np.polyfit(x, v, 1)[0])
