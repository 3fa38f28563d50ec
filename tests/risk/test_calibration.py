"""The table's forests against scikit-learn's own, and what is made of them."""

import math

import numpy as np
import pytest
from benchmarks.trainability import fit
from scipy.special import expit, logit

from gradgauge.risk import calibration
from gradgauge.risk.calibration import at_rate, categories, level_of, probability
from gradgauge.risk.forest import Forest

NEAR = {
    "recurrent": 0.0,
    "depth": 18.0,
    "heads": 0.85,
    "parameters": 4.2,
    "width": 1.7,
    "outputs": 1.0,
    "input": 0.0,
    "analytic.gain.sum": -0.5,
    "gradient.first": 0.6,
    "probe.sgd.best": 0.9,
}


def drawn(count, *, seed):
    """Rows with two features that matter, one that does not, and values that are missing."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        a, b, c = rng.standard_normal(3)
        targets = int(a + 0.5 * b + 0.3 * rng.standard_normal() > 0), int(b > 0.5)
        x = {"a": a, "b": b, "c": c}
        if rng.random() < 0.2:
            del x["b"]
        rows.append((x, targets, 1.0, f"n{k}"))
    return rows


def walked(rows, names):
    """The service's log odds and their scatter of every row, by a forest on 300 others."""
    held = fit.Forest(drawn(300, seed=1), names)
    told = Forest.read({"targets": ["first", "second"]} | held.exported())
    branch = {"features": names, "forests": {"both": told}}
    odds = [[calibration._odds(branch, t, x) for t in ("first", "second")] for x, *_ in rows]
    return held, odds


def test_an_exported_forest_says_what_scikit_learn_says():
    rows, names = drawn(200, seed=2), ["a", "b", "c"]
    held, odds = walked(rows, names)
    theirs = held.odds(fit.matrix(rows, names))
    ours = np.array([[one.middle for one in both] for both in odds])
    assert expit(ours) == pytest.approx(expit(theirs), abs=5e-4)  # leaves are told in thousandths
    assert (np.std(theirs, axis=0) > 0.5).all()


def test_what_was_never_known_in_the_fit_and_what_is_unknown_now_find_a_leaf():
    names = ["a", "b", "never"]
    held, odds = walked([({}, (), 1.0, ""), ({"a": 1.0}, (), 1.0, "")], names)
    x = np.array([[np.nan] * 3, [1.0, np.nan, np.nan]])
    ours = np.array([[one.middle for one in both] for both in odds])
    assert expit(ours) == pytest.approx(expit(held.odds(x)), abs=5e-4)


def test_the_scatter_of_groups_of_trees_covers_that_of_forests_on_other_draws():
    """The oracle: the same forest on ten draws of the networks with replacement."""
    rows, names = drawn(60, seed=6), ["a", "b", "c"]
    first = np.array([both[0].scatter for both in walked(rows, names)[1]])
    rng, others, seen = np.random.default_rng(0), [], drawn(300, seed=1)
    for _ in range(10):
        again = [seen[k] for k in rng.integers(0, len(seen), len(seen))]
        others.append(fit.Forest(again, names).odds(fit.matrix(rows, names))[:, 0])
    ratio = np.sqrt(np.mean(first**2) / np.mean(np.var(others, axis=0, ddof=1)))
    assert 1.0 < ratio < 3.0  # 1.3 to 1.7 on the fit part


def test_no_row_of_the_fit_lies_outside_of_what_it_saw():
    rows = drawn(200, seed=4)
    seen = [x["b"] for x, *_ in rows if "b" in x]
    assert fit._range(rows, "b") == pytest.approx([min(seen), max(seen)], rel=1e-3)


def test_a_target_no_row_has_is_told_as_unlikely_as_may_be():
    rows = [(x, (0,), w, key) for x, _, w, key in drawn(99, seed=3)]
    held = fit.Forest(rows, ["a"])
    assert expit(held.odds(np.zeros((2, 1)))) == pytest.approx(np.full((2, 1), 0.01))
    assert fit.scaled(rows, ["a"])[1] == [[1.0, 0.0]]


def test_left_out_odds_are_scaled_to_probabilities():
    rows = drawn(300, seed=1)
    z, scaling = fit.scaled(rows, ["a", "b", "c"])
    for k, (slope, offset) in enumerate(scaling):
        y = np.array([r[1][k] for r in rows])
        p = expit(slope * z[:, k] + offset)
        assert p.mean() == pytest.approx(y.mean(), abs=0.01)
        assert np.mean((p - y) ** 2) <= np.mean((expit(z[:, k]) - y) ** 2) + 1e-6


def test_a_probe_that_learns_and_one_that_does_not_are_told_apart():
    held = {**NEAR, **{f"probe.sgd@{lr}": 0.9 for lr in ("0.1", "0.01", "0.001")}}
    stuck = {**held, **{key: 0.0 for key in held if key.startswith("probe.")}}
    assert probability(held, "sgd").p < probability(stuck, "sgd").p
    for told in (probability(held, "sgd"), probability(stuck, "adam")):
        assert 0 <= told.low <= told.p <= told.high <= 1


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_a_base_rate_moves_the_odds_by_bayes_rule(rate):
    plain, moved = probability(NEAR, "sgd"), probability(NEAR, "sgd", base_rate=rate)
    expected = logit(plain.p) + logit(rate) - logit(plain.base_rate)
    assert logit(moved.p) == pytest.approx(expected, abs=1e-9)
    assert moved.base_rate == rate


def test_categories_sum_to_one_and_a_base_rate_moves_them():
    few, many = (categories(NEAR, base_rate=rate) for rate in (0.05, 0.95))
    assert sum(few.values()) == pytest.approx(1)
    assert sum(many.values()) == pytest.approx(1)
    assert few["trains"] > many["trains"]


def test_a_network_of_billions_gets_its_base_rate_and_no_confidence():
    large = {**NEAR, "parameters": 9.85, "width": 3.6, "depth": 300.0, "outputs": 4.5}
    told = probability(large, "sgd")
    assert probability(NEAR, "sgd").confidence == 1.0
    assert told.confidence < 0.05
    assert told.p == pytest.approx(told.base_rate, abs=0.05)
    assert told.high - told.low > 0.5


def test_confidence_falls_with_distance():
    each = [
        probability({**NEAR, "parameters": size}, "sgd").confidence for size in (4.0, 6.5, 7.5, 9.0)
    ]
    assert each == sorted(each, reverse=True)
    assert len(set(each)) == 4


def test_the_level_is_that_of_the_signals_there_are():
    assert level_of(NEAR) == "standard"
    assert level_of({k: v for k, v in NEAR.items() if "probe" not in k}) == "quick"
    assert level_of({"analytic.gain.sum": 0.0}) == "analytic"
    assert level_of({"gradient.first": 0.0, "probe.sgd.best": 0.1}) is None


def test_a_rate_brings_the_probe_and_the_edge_of_stability_at_it():
    found = at_rate({"probe.adam@0.002": 0.7, "ntk_largest_eigenvalue": 3.0}, "adam", 2e-3)
    assert found["rate.probe"] == 0.7
    assert found["rate.edge"] == pytest.approx(math.log10(1000 * 2e-3 / 2))
