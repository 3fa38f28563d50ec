"""Concentration of attention weights against drawn logits."""

import numpy as np
import pytest

from gradgauge.analytic.ensemble.softmax import averaged, concentration


@pytest.mark.parametrize("n", [4, 256])
@pytest.mark.parametrize("s", [0.5, 1.5, 3.0, 6.0])
def test_concentration_is_that_of_drawn_logits(n, s):
    logits = s * np.random.default_rng(0).standard_normal((20_000, n))
    A = np.exp(logits - logits.max(1, keepdims=True))
    A /= A.sum(1, keepdims=True)
    drawn = (A * A).sum(1)
    assert concentration(s * s, n) == pytest.approx(drawn.mean(), rel=0.015)


@pytest.mark.parametrize("s", [0.01, 0.3, 1.0, 1.5, 2.0])
def test_of_two_logits_it_is_an_integral_over_their_difference(s):
    z = np.linspace(-12, 12, 4001)
    mass = np.exp(-0.5 * z * z)
    A = 1 / (1 + np.exp(np.sqrt(2) * s * z))
    wanted = np.sum(mass * (A * A + (1 - A) ** 2)) / mass.sum()
    assert concentration(s * s, 2) == pytest.approx(wanted, rel=1e-7)


def test_equal_logits_spread_evenly_and_one_entry_takes_all():
    assert concentration(0.0, 10) == pytest.approx(0.1)
    assert concentration(3.0, 1) == 1.0


def test_a_causal_mask_averages_over_rows_of_all_lengths():
    rows = [concentration(1.0, n) for n in range(1, 101)]
    assert averaged(1.0, 100) == pytest.approx(sum(rows) / 100, rel=0.03)
    assert averaged(1.0, 8) == pytest.approx(sum(rows[:8]) / 8, rel=1e-12)
