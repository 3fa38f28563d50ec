"""Gaussian moments of every activation a spec may name, against scipy's adaptive quadrature."""

import math
from functools import cache, lru_cache
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from scipy.integrate import quad

from gradgauge.analytic.ensemble.functions import FUNCTIONS
from gradgauge.analytic.ensemble.kernels import kernel
from gradgauge.schema.activations import ACTIVATIONS, Function

ALONG_AN_AXIS = {"softmax", "log_softmax", "hardmax"}
POINTWISE = sorted(set(get_args(Function)) - ALONG_AN_AXIS)
GIVEN = {"clip": {"min": -1.0, "max": 0.5}}


def parameters(name):
    return {**ACTIVATIONS[name].params, **GIVEN.get(name, {})}


def expected(f, m, v, breaks):
    s = math.sqrt(v)

    def density(z):
        return f(m + s * z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    edges = sorted({-13.0, 13.0, 0.0, *((b - m) / s for b in breaks if abs(b - m) < 13 * s)})
    return sum(quad(density, a, b, limit=200)[0] for a, b in pairwise(edges))


def of(name):
    phi, p = FUNCTIONS[name], parameters(name)
    value = lambda x: float(phi.value(np.array([x]), p)[0])  # noqa: E731
    slope = lambda x: float(phi.slope(np.array([x]), p)[0])  # noqa: E731
    return value, slope, phi.kinks(p)


def test_every_pointwise_activation_of_specs_has_its_function():
    assert sorted(FUNCTIONS) == POINTWISE


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize(("m", "v"), [(0.0, 1.0), (0.7, 0.3), (-1.5, 4.0)])
def test_moments_are_those_of_quadrature(name, m, v):
    value, slope, breaks = of(name)
    k = kernel(name, tuple(parameters(name).items()), m, v)
    assert k.mean == pytest.approx(expected(value, m, v, breaks), rel=1e-6, abs=1e-8)
    assert k.second == pytest.approx(expected(lambda x: value(x) ** 2, m, v, breaks), rel=1e-6)
    assert k.slope == pytest.approx(expected(lambda x: slope(x) ** 2, m, v, breaks), rel=1e-6)


@pytest.mark.parametrize("name", POINTWISE)
def test_slopes_are_derivatives(name):
    value, slope, breaks = of(name)
    for x in (-3.3, -0.8, 0.3, 0.9, 2.6):
        if all(abs(x - b) > 1e-3 for b in breaks):
            assert slope(x) == pytest.approx((value(x + 1e-6) - value(x - 1e-6)) / 2e-6, abs=1e-4)


@cache
def drawn():
    return np.random.default_rng(3).standard_normal((2, 1_000_000))


@lru_cache(maxsize=1)
def of_the_first(name):
    phi, p = FUNCTIONS[name], parameters(name)
    x, _ = drawn()
    return phi.value(x, p), phi.slope(x, p)


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.5, 0.9])
@pytest.mark.parametrize("name", POINTWISE)
def test_two_points_are_those_of_a_million_draws(name, rho):
    z, w = drawn()
    phi, p = FUNCTIONS[name], parameters(name)
    value, slope = of_the_first(name)
    y = rho * z + math.sqrt(1 - rho * rho) * w
    pair = kernel(name, tuple(p.items()), 0.0, 1.0).pair(rho)
    values, slopes = value * phi.value(y, p), slope * phi.slope(y, p)
    for got, found in ((pair.value, values), (pair.slope, slopes)):
        assert got == pytest.approx(found.mean(), abs=5 * found.std() / 1000 + 1e-3)


def test_at_equal_points_the_pair_is_the_moment():
    k = kernel("tanh", (), 0.0, 2.0)
    assert k.pair(2.0) == (k.second, k.slope)
    near = k.pair(2.0 - 1e-9)
    assert near.value == pytest.approx(k.second, rel=1e-8)
    assert near.slope == pytest.approx(k.slope, rel=1e-6)


def test_no_variance_is_the_function_itself():
    k = kernel("sigmoid", (), 1.0, 0.0)
    assert k.mean == pytest.approx(1 / (1 + math.exp(-1)))
    assert k.pair(1.0).slope == k.slope


def test_a_variance_that_has_overflowed_stays_unknown():
    assert kernel("tanh", (), 0.0, math.inf).second == math.inf
    assert kernel("relu", (), 0.0, math.inf).slope == 0.5


def test_what_overflows_has_no_pair_of_its_own():
    k = kernel("exp", (), 0.0, 1e12)
    assert k.pair(0.5) == (math.inf, math.inf)


def test_parity_is_said_of_the_functions_that_have_one():
    x = np.linspace(0.1, 5.0, 40)
    for name, phi in FUNCTIONS.items():
        if phi.parity is not None:
            p = parameters(name)
            sign = -1 if phi.parity else 1
            assert phi.value(-x, p) == pytest.approx(sign * phi.value(x, p), rel=1e-15), name


@pytest.mark.parametrize("v", [1e-4, 0.03, 1.0, 6.0])
@pytest.mark.parametrize(
    "name", [name for name, phi in FUNCTIONS.items() if phi.parity is not None]
)
def test_half_the_line_gives_the_moments_of_the_whole(name, v):
    value, slope, breaks = of(name)
    k = kernel(name, tuple(parameters(name).items()), 0.0, v)
    assert k.mean == pytest.approx(expected(value, 0.0, v, breaks), rel=1e-9, abs=1e-12)
    assert k.second == pytest.approx(expected(lambda x: value(x) ** 2, 0.0, v, breaks), rel=1e-9)
    assert k.slope == pytest.approx(expected(lambda x: slope(x) ** 2, 0.0, v, breaks), rel=1e-9)


CLOSED = {
    "sin": (lambda v, c: math.exp(-v) * math.sinh(c), lambda v, c: math.exp(-v) * math.cosh(c)),
    "cos": (lambda v, c: math.exp(-v) * math.cosh(c), lambda v, c: math.exp(-v) * math.sinh(c)),
    "erf": (
        lambda v, c: 2 / math.pi * math.asin(2 * c / (1 + 2 * v)),
        lambda v, c: 4 / math.pi / math.sqrt((1 + 2 * v) ** 2 - 4 * c * c),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("rho", [-0.9, -1e-3, 1e-120, 1e-3, 0.4, 0.97])
@pytest.mark.parametrize("v", [1e-3, 0.5, 2.0])
def test_two_points_of_odd_and_even_functions_have_closed_forms(name, rho, v):
    # Williams 1997 for erf; sines and cosines from the Gaussian's characteristic function
    value, slope = CLOSED[name]
    k = kernel(name, (), 0.0, v)
    pair = k.pair(rho * v)
    assert pair.value == pytest.approx(value(v, rho * v), rel=1e-8)
    assert pair.slope == pytest.approx(slope(v, rho * v), rel=1e-8)


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("overlap", [-0.4, 0.0, 0.2, 0.69, 0.7])
def test_the_value_alone_is_that_of_the_pair(name, overlap):
    for m in (0.0, 0.3):
        k = kernel(name, tuple(parameters(name).items()), m, 0.7)
        assert k.value(overlap) == k.pair(overlap).value


def test_nothing_overflows_where_overflow_is_not_looked_for():
    for name in POINTWISE:
        if not ACTIVATIONS[name].params:
            held = kernel(name, (), 20.0, 2.99**2)  # a warning would be an error
            assert math.isfinite(held.second), name
