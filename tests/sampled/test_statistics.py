"""Sizes, quantiles and intervals against numpy, scipy and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from gradgauge.sampled.statistics import (
    decades_slope,
    log10_rms,
    median,
    median_halfwidth,
    median_interval,
    quantile_interval,
    quantiles,
    t_interval,
)

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("exponent", [0, -300, -320, 300, -30, 30])
def test_sizes_are_right_from_denormal_to_huge(exponent):
    x = RNG.normal(size=(5, 70))
    expected = np.log10(np.sqrt((x**2).mean(axis=1))) + exponent
    scaled = torch.tensor(x) * 10.0 ** (exponent / 2) * 10.0 ** (exponent / 2)
    # a denormal number holds few digits
    assert log10_rms(scaled).numpy() == pytest.approx(
        expected, abs=1e-3 if exponent < -307 else 1e-9
    )


def test_the_size_of_zeros_is_minus_infinity_and_what_is_not_finite_stays_so():
    x = torch.tensor([[0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0], [3.0, 4.0]])
    sizes = log10_rms(x)
    assert sizes[0] == -math.inf
    assert sizes[1] == math.inf
    assert math.isnan(sizes[2])
    assert sizes[3] == pytest.approx(math.log10(math.sqrt(12.5)))
    assert log10_rms(torch.zeros(2, 0)).tolist() == [-math.inf] * 2


def test_quantiles_are_numpys():
    x = RNG.normal(size=101)
    found = quantiles(x)
    expected = np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])  # at elements: 5, 25, 50, 75, 95
    assert [found.q05, found.q25, found.q50, found.q75, found.q95] == pytest.approx(expected)


def test_a_quantile_that_falls_on_a_zero_gradient_is_left_out():
    found = quantiles(np.array([-math.inf] * 4 + [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]))
    assert (found.q05, found.q25) == (None, None)
    assert (found.q50, found.q95) == (-2.0, 3.0)


def test_of_one_value_there_is_a_median_only_and_of_none_nothing():
    found = quantiles(np.array([math.nan, -2.0]))
    assert (found.q05, found.q25, found.q50, found.q75, found.q95) == (None, None, -2.0, None, None)
    assert quantiles(np.array([-math.inf, math.nan])) is None
    assert quantiles(np.zeros(0)) is None


def covered(intervals, truth):
    return float(np.mean([i.low <= truth <= i.high for i in intervals]))


@pytest.mark.parametrize("count", [8, 9, 32, 64, 101, 128])
def test_the_medians_interval_holds_it_as_often_as_it_says(count):
    """Of log10 sizes of normal vectors of 12, whose median is known; 4000 samples."""
    samples = 0.5 * np.log10(RNG.chisquare(12, size=(4000, count)) / 12)
    truth = 0.5 * math.log10(stats.chi2.ppf(0.5, 12) / 12)
    # binomial: four standard errors of 4000 trials
    assert covered(map(median_interval, samples), truth) == pytest.approx(0.95, abs=0.014)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.95])
@pytest.mark.parametrize("count", [100, 128, 257])
def test_a_quantiles_interval_holds_it_as_often_as_it_says(share, count):
    samples = RNG.exponential(size=(4000, count))
    truth = -math.log(1 - share)
    found = [quantile_interval(x, share) for x in samples]
    assert covered(found, truth) == pytest.approx(0.95, abs=0.014)


def test_below_a_hundred_values_a_quantile_has_no_interval():
    assert quantile_interval(RNG.normal(size=99), 0.05) is None
    assert quantile_interval(np.full(200, -math.inf), 0.05) is None
    held = quantile_interval(np.arange(100.0), 0.5)
    # P(39 < N <= 60) = 0.9648 and P(40 < N <= 59) = 0.9432 of a binomial of 100 halves
    assert 39.0 < held.low < 40.0
    assert 59.0 < held.high < 60.0


@pytest.mark.parametrize("count", [3, 4, 8, 30])
def test_the_interval_of_few_values_is_students(count):
    x = RNG.normal(size=count)
    low, high = stats.t.interval(0.95, count - 1, scale=stats.sem(x))
    found = t_interval(x)
    assert found.high - found.low == pytest.approx(high - low)
    assert (found.high + found.low) / 2 == pytest.approx(np.median(x))
    assert t_interval(x[:2]) is None


def test_the_medians_halfwidth_is_that_of_a_normal_sample():
    widths = [median_halfwidth(x) for x in RNG.normal(size=(50, 400))]
    # standard error of a normal median: sqrt(pi / 2 / n)
    assert np.mean(widths) == pytest.approx(1.96 * math.sqrt(math.pi / 2 / 400), rel=0.1)
    assert median_halfwidth(np.zeros(19)) == math.inf


def test_a_slope_is_fitted_over_the_steps_that_have_a_gradient():
    line = [2.0 - 0.3 * i for i in range(10)]
    line[3], line[7] = None, math.nan
    assert decades_slope(line) == pytest.approx(-0.3)
    assert decades_slope([1.0, None, 2.0]) is None


@pytest.mark.parametrize("count", [1, 2, 7, 8, 33])
def test_a_median_is_numpys(count):
    values = RNG.normal(size=count) * 1e3
    assert median(values) == np.median(values)
