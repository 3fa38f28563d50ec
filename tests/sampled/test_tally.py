"""What a pass measures on its way: sizes and directions against numpy, both gauges."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from gradgauge.sampled.tally import Guarded, Plain, Tally

RNG = np.random.default_rng(5)
BOTH = pytest.mark.parametrize("gauge", [Plain(), Guarded()], ids=["plain", "guarded"])


def mean_cosine(gauge, x):
    x = torch.as_tensor(np.asarray(x))
    length = float(gauge.together(x[None], gauge.sizes(x[None])))
    return (length**2 - len(x)) / (len(x) * (len(x) - 1))


@BOTH
@pytest.mark.parametrize("exponent", [0, -15, 15])
def test_both_gauges_measure_float32_within_the_safe_range(gauge, exponent):
    x = RNG.normal(size=(5, 700)) * 10.0**exponent
    expected = np.log10(np.sqrt((x**2).mean(axis=1)))
    raw = gauge.sizes(torch.tensor(x, dtype=torch.float32)).numpy()
    assert gauge.decades(raw, 700) == pytest.approx(expected, abs=1e-5)
    tensors = [torch.tensor(row, dtype=torch.float32) for row in x]
    assert gauge.decades(gauge.many(tensors).numpy(), np.full(5, 700)) == pytest.approx(
        expected, abs=1e-5
    )


def test_a_long_float32_row_loses_no_more_than_a_ten_thousandth_of_a_decade():
    x = torch.randn(2, 5_000_000, generator=torch.Generator().manual_seed(0))
    raw = Plain().sizes(x).double().numpy()
    expected = np.log10(np.sqrt((x.double().numpy() ** 2).mean(axis=1)))
    assert Plain().decades(raw, x.shape[1]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("exponent", [-25, 25])
def test_outside_the_safe_range_the_plain_gauge_says_so_and_the_guarded_one_measures(exponent):
    x = RNG.normal(size=(5, 70)) * 10.0**exponent
    expected = np.log10(np.sqrt((x**2).mean(axis=1)))
    fed = torch.tensor(x, dtype=torch.float32)
    plain = Plain().decades(Plain().sizes(fed).numpy(), 70)
    low, high = Plain.SAFE_LOG10
    assert ((plain < low) | (plain > high)).all()
    assert Guarded().sizes(fed).numpy() == pytest.approx(expected, abs=1e-6)


@BOTH
def test_the_cosine_is_the_mean_over_all_pairs(gauge):
    x = RNG.normal(size=(7, 5)) + 0.5
    pairs = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in combinations(x, 2)]
    assert mean_cosine(gauge, x) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_guarded_cosine_knows_no_range(scale):
    x = RNG.normal(size=(7, 5)) + 0.5
    assert mean_cosine(Guarded(), x * scale) == pytest.approx(mean_cosine(Guarded(), x), abs=1e-12)


@BOTH
def test_several_values_are_measured_together_as_each_alone(gauge):
    x = torch.tensor(RNG.normal(size=(3, 5, 7)))
    sizes = gauge.sizes(x)
    for i in range(3):
        assert torch.allclose(sizes[i], gauge.sizes(x[i : i + 1])[0])
    alone = [gauge.together(x[i : i + 1], sizes[i : i + 1]) for i in range(3)]
    assert torch.allclose(gauge.together(x, sizes), torch.cat(alone))


@BOTH
def test_equal_rows_have_cosine_one_and_opposite_ones_minus_one(gauge):
    assert mean_cosine(gauge, np.ones((6, 3))) == pytest.approx(1.0)
    assert mean_cosine(gauge, [[1.0, 2.0], [-1.0, -2.0]]) == pytest.approx(-1.0)


@BOTH
@pytest.mark.parametrize("row", [[0.0, 0.0], [math.nan, 0.0], [math.inf, 0.0]])
def test_there_is_no_cosine_with_a_row_of_zeros_or_of_what_is_not_finite(gauge, row):
    assert math.isnan(mean_cosine(gauge, [row, [1.0, 2.0]]))


def test_only_the_guarded_gauge_counts_what_is_not_finite_the_plain_norm_tells():
    x = torch.tensor([[1.0, math.nan, math.inf, 2.0]])
    assert Guarded().faulty(x).tolist() == [2]
    assert Plain().faulty(x) is None
    assert not Plain().sizes(x).isfinite().any()


def test_everything_comes_back_in_its_own_shape_and_once():
    tally, held = Tally(), []
    for part in (torch.ones(2, 2), torch.tensor(3.0), torch.arange(3.0)):
        tally.add(part, lambda raw: held.append(raw.tolist()))
    assert held == []
    tally.fetch()
    tally.fetch()
    assert held == [[1.0] * 4, [3.0], [0.0, 1.0, 2.0]]
