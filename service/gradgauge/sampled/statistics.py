"""Sizes, quantiles and intervals that neither underflow nor overflow: everything in log10."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from scipy.special import bdtr, stdtrit
from torch import Tensor

from gradgauge.schema.profile import Interval, Quantiles

LEVEL = 0.95
SHARES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
ENOUGH = 100  # values from which on a quantile's interval is told


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
    # np.quantile's method "nearest", at a tenth of the price of a call
    found = np.sort(held)[np.around((held.size - 1) * SHARES).astype(int)]
    return Quantiles(*(float(q) if np.isfinite(q) else None for q in found))


def median(held: np.ndarray) -> float:
    """np.median of finite values, at a fifth of the price of a call."""
    ordered, half = np.sort(held), held.size // 2
    if held.size % 2:
        return float(ordered[half])
    return float(ordered[half - 1] + ordered[half]) / 2


def median_interval(values: np.ndarray) -> Interval | None:
    """Interval of the median over inputs and cotangents, both drawn anew for every value."""
    held = values[np.isfinite(values)]
    return t_interval(held) if held.size < 8 else _between(np.sort(held), 0.5)


def quantile_interval(values: np.ndarray, share: float) -> Interval | None:
    """Interval of a quantile, free of any assumption on the values' law; None below 100 of them."""
    held = values[np.isfinite(values)]
    return None if held.size < ENOUGH else _between(np.sort(held), share)


def _between(held: np.ndarray, share: float) -> Interval:
    """Order statistics, interpolated so that both tails are what the level leaves (Nyblom 1992).

    They are where the percentile bootstrap of a quantile ends too, without its draws.
    """
    (low, inward), (high, outward) = _places(held.size, share)
    at_low = (1 - inward) * held[low - 1] + inward * held[low]
    at_high = (1 - outward) * held[high - 1] + outward * held[high - 2]
    return Interval(float(at_low), float(at_high), LEVEL, "order_statistics")


@cache
def _places(count: int, share: float) -> tuple[tuple[int, float], tuple[int, float]]:
    """Lower and upper place (from 1) and the weight of the next one further in."""
    return _low_place(count, share), _mirrored(count, *_low_place(count, 1 - share))


def _mirrored(count: int, place: int, weight: float) -> tuple[int, float]:
    return count + 1 - place, weight


def _low_place(count: int, share: float) -> tuple[int, float]:
    """The last place that lies above the quantile with a chance of at most the tail's."""
    tail = (1 - LEVEL) / 2
    # [l]: the chance that the l-th lies above it
    above = np.append(0.0, bdtr(np.arange(count), count, share))
    place = max(1, int(np.searchsorted(above, tail, side="right")) - 1)
    here, further = float(above[place]), float(above[place + 1])
    if here >= tail:
        return place, 0.0
    odds = place * (1 - share) * (further - tail) / ((count - place) * share * (tail - here))
    return place, 1 / (1 + odds)


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
    half = _student(held.size - 1) * float(held.std(ddof=1)) / math.sqrt(held.size)
    middle = median(held)
    return Interval(middle - half, middle + half, LEVEL, "student_t")


@cache
def _student(freedom: int) -> float:
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def decades_slope(y: Sequence[float | None]) -> float | None:
    """Least-squares slope of `y` against its index; None with fewer than three finite values."""
    points = [(i, v) for i, v in enumerate(y) if v is not None and math.isfinite(v)]
    if len(points) < 3:
        return None
    x, v = np.array(points).T
    return float(np.polyfit(x, v, 1)[0])
