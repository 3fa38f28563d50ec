"""Closed forms and published constants of single functions; whole networks: rows.py."""

import math

import pytest
import torch
from torch.nn import functional

from gradgauge.analytic import expectations
from gradgauge.analytic.expectations import respond


def test_erf_without_bias_is_critical_at_a_quarter_of_pi():
    # At q -> 0 chi = s_w^2 phi'(0)^2 = s_w^2 4 / pi.
    slope = respond(torch.erf, 0.0, 1e-12).slope
    assert 1.0 / slope == pytest.approx(math.pi / 4, abs=1e-6)


def test_relu_with_he_weights_keeps_gradients():
    got = expectations.relu(0.0, 1.0)
    assert 2 * got.slope == pytest.approx(1.0, abs=1e-6)
    assert got.second == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("q", [0.2, 1.0, 30.0])
def test_relu_overlap_map_at_one_half(q):
    pair = expectations.relu_pair(q, 0.5 * q)
    assert pair.value / (0.5 * q) == pytest.approx(0.608998, abs=1e-6)


@pytest.mark.parametrize(
    ("phi", "second", "slope", "tolerance"),
    [
        (torch.erf, 0.464559, 0.569410, 1e-6),
        (functional.gelu, 0.425221, 0.455851, 1e-5),
        (functional.silu, 0.35578, 0.37948, 1e-5),
        (torch.tanh, 0.39429, 0.46440, 1e-5),
    ],
    ids=["erf", "gelu", "silu", "tanh"],
)
def test_expectations_at_unit_variance(phi, second, slope, tolerance):
    got = respond(phi, 0.0, 1.0)
    assert got.second == pytest.approx(second, abs=tolerance)
    assert got.slope == pytest.approx(slope, abs=tolerance)


def test_the_closed_erf_is_its_published_value():
    assert expectations.erf(1.0).second == pytest.approx(2 / math.pi * math.asin(2 / 3), abs=1e-12)


def test_selu_keeps_mean_zero_and_variance_one():
    got = respond(functional.selu, 0.0, 1.0)
    assert got.mean == pytest.approx(0.0, abs=1e-4)
    assert got.second == pytest.approx(1.0, abs=1e-4)
    scale, alpha = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017
    tail = math.exp(2) * math.erfc(2 / math.sqrt(2)) / 2  # E exp(2z) over z < 0
    assert got.slope == pytest.approx(scale**2 * (0.5 + alpha**2 * tail), abs=1e-9)


@pytest.mark.parametrize(
    ("phi", "gamma"), [(torch.relu, 1.7129), (functional.gelu, 1.7009), (functional.silu, 1.7872)]
)
def test_the_scales_of_normaliser_free_networks(phi, gamma):
    got = respond(phi, 0.0, 1.0)
    assert 1 / math.sqrt(got.second - got.mean**2) == pytest.approx(gamma, abs=1e-3)
