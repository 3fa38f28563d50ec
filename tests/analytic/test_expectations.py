"""Gaussian expectations against closed forms, scipy's quadrature and plain sampling."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.stats import norm

from gradgauge.analytic import expectations

ACTIVATIONS = {
    "tanh": (torch.tanh, np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2),
    "sigmoid": (
        torch.sigmoid,
        lambda x: 1 / (1 + np.exp(-x)),
        lambda x: np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))) ** 2,
    ),
    "relu": (torch.relu, lambda x: np.maximum(x, 0), lambda x: np.heaviside(x, 0.0)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("m", "v"), [(0.0, 1.0), (-0.7, 0.3), (2.0, 900.0), (0.1, 1e-8)])
def test_quadrature_agrees_with_scipy_from_linear_to_saturated(name, m, v):
    run, phi, slope = ACTIVATIONS[name]
    got = expectations.respond(run, m, v)
    kinks = ((k - m) / math.sqrt(v) for k in (-8, -1, 0, 1, 8))
    bends = sorted({-9.0, 9.0, *(np.clip(k, -9, 9) for k in kinks)})

    def mean_of(f):
        parts = (
            integrate.quad(lambda z: f(m + math.sqrt(v) * z) * norm.pdf(z), a, b, limit=200)[0]
            for a, b in itertools.pairwise(bends)
        )
        return sum(parts)

    assert got.mean == pytest.approx(mean_of(phi), rel=1e-7, abs=1e-10)
    assert got.second == pytest.approx(mean_of(lambda x: phi(x) ** 2), rel=1e-7, abs=1e-10)
    assert got.slope == pytest.approx(mean_of(lambda x: slope(x) ** 2), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize(("m", "v"), [(0.0, 1.0), (0.5, 2.0), (-3.0, 0.5)])
def test_the_closed_relu_is_the_quadrature(m, v):
    closed, numeric = expectations.relu(m, v), expectations.respond(torch.relu, m, v)
    assert closed.mean == pytest.approx(numeric.mean, rel=1e-9)
    assert closed.second == pytest.approx(numeric.second, rel=1e-9)
    assert closed.slope == pytest.approx(numeric.slope, rel=1e-9)


def test_a_dead_relu_passes_almost_nothing_and_never_a_negative_amount():
    dead = expectations.relu(-10.0, 1.0)
    assert dead.slope == pytest.approx(norm.cdf(-10.0), rel=1e-9)
    assert 0 <= dead.second < 1e-22
    assert expectations.relu(-60.0, 1.0).second == 0.0


@pytest.mark.parametrize("c", [0.0, 0.3, 0.9, 0.999999, 1.0])
@pytest.mark.parametrize("q", [0.3, 1.0, 5.0])
def test_closed_pairs_are_the_nested_quadrature(c, q):
    for run, closed in (
        (torch.relu, expectations.relu_pair),
        (torch.erf, expectations.erf_pair),
    ):
        numeric = expectations.respond_pair(run, 0.0, q, c * q)
        want = closed(q, c * q)
        assert numeric.value == pytest.approx(want.value, rel=2e-4, abs=1e-9)
        # A jump smeared over a thousandth of a standard deviation is what the grid resolves.
        assert numeric.slope == pytest.approx(want.slope, rel=1e-3, abs=1e-9)


def test_the_pair_at_a_mean_agrees_with_sampling():
    m, v, o = 0.4, 1.5, 0.4**2 + 0.6 * 1.5
    generator = np.random.default_rng(0)
    a, b, c = generator.normal(size=(3, 2_000_000))
    x = m + math.sqrt(v) * (math.sqrt(0.6) * a + math.sqrt(0.4) * b)
    y = m + math.sqrt(v) * (math.sqrt(0.6) * a + math.sqrt(0.4) * c)
    got = expectations.respond_pair(torch.sigmoid, m, v, o)
    sigmoid, slope = ACTIVATIONS["sigmoid"][1:]
    assert got.value == pytest.approx((sigmoid(x) * sigmoid(y)).mean(), rel=2e-3)
    assert got.slope == pytest.approx((slope(x) * slope(y)).mean(), rel=2e-3)


def test_the_pair_without_overlap_factorises_and_at_full_overlap_is_the_response():
    alone = expectations.respond(torch.sigmoid, 0.3, 2.0)
    apart = expectations.respond_pair(torch.sigmoid, 0.3, 2.0, 0.3**2)
    same = expectations.respond_pair(torch.sigmoid, 0.3, 2.0, 0.3**2 + 2.0)
    assert apart.value == pytest.approx(alone.mean**2, rel=1e-12)
    assert same.value == pytest.approx(alone.second, rel=1e-12)
    assert same.slope == pytest.approx(alone.slope, rel=1e-12)


def test_a_function_undefined_on_one_side_is_averaged_over_the_other():
    got = expectations.respond(torch.sqrt, 0.0, 1.0)
    assert got.second == pytest.approx(math.sqrt(2 / math.pi), rel=1e-6)


def test_a_step_function_has_no_slope():
    got = expectations.respond(torch.sign, 0.0, 1.0)
    assert (got.second, got.slope) == (pytest.approx(1.0), 0.0)
