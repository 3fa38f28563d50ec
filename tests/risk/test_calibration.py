"""The table's trees against scikit-learn's own, and what is made of them."""

import math

import numpy as np
import pytest
from benchmarks.trainability import fit
from scipy.special import expit, logit

from gradgauge.risk import calibration
from gradgauge.risk.calibration import at_rate, categories, level_of, probability

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
        target = int(a + 0.5 * b + 0.3 * rng.standard_normal() > 0)
        x = {"a": a, "b": b, "c": c}
        if rng.random() < 0.2:
            del x["b"]
        rows.append((x, target, 1.0, f"n{k}"))
    return rows


@pytest.mark.parametrize("recurrent", [False, True])
def test_exported_trees_say_what_scikit_learn_says(recurrent):
    rows, names = drawn(300, seed=1), ["a", "b", "c"]
    for held in fit.bagged(rows, names, recurrent=recurrent, bags=2):
        exported = fit.exported(held)
        for x in fit.matrix(drawn(200, seed=2), names):
            theirs = held.predict_proba(x[None])[0, 1]
            assert expit(calibration._raw(exported, x)) == pytest.approx(theirs, abs=1e-4)


def test_an_exported_forest_says_what_scikit_learn_says():
    rows, names = drawn(300, seed=4), ["a", "b", "c"]
    held = fit.forest(rows, names)
    exported, x = held.exported(), fit.matrix(drawn(200, seed=5), names)
    theirs = held.odds(x)
    assert [calibration._forest(exported, one) for one in x] == pytest.approx(theirs, abs=2e-3)
    assert np.std(theirs) > 0.5


def test_rows_with_hardly_any_of_one_answer_make_a_constant():
    rows = [(x, int(k == 0), w, key) for k, (x, _, w, key) in enumerate(drawn(99, seed=3))]
    (held,) = fit.bagged(rows, ["a"], recurrent=False, bags=4)
    assert expit(held.decision_function(np.zeros((2, 1)))) == pytest.approx([0.015] * 2)
    assert calibration._raw(fit.exported(held), [0.0]) == pytest.approx(logit(0.015), abs=1e-4)


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
