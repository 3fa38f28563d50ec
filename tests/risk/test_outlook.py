"""Probabilities in a report: of fresh networks, at the rate asked for, never of trained ones."""

import numpy as np
import pytest
from benchmarks.trainability.data import batches, pool
from benchmarks.trainability.export import export
from benchmarks.trainability.specs import spec

from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions

FROZEN = {"kind": "frozen_norm", "layer": "n*", "size": 30.0, "seed": 1}


def healthy():
    return spec(5) | {"fault": None, "depth": 3, "init": "he", "act": "relu", "data": "digits"}


def hopeless():
    return healthy() | {"depth": 32, "act": "sigmoid", "init": "glorot"}


def report(one, **options):
    given = AnalysisOptions(**({"remediate": False, "profile": "quick"} | options))
    return analyze(export(one), given)


@pytest.fixture
def data(tmp_path):
    one = healthy()
    x, y = pool(one)
    taken = batches(one, 64, 1)[0]
    np.savez(tmp_path / "batch.npz", x=x[taken], y=y[taken])
    return tmp_path / "batch.npz"


@pytest.mark.parametrize("profile", ["quick", "standard"])
def test_a_network_that_trains_and_one_that_does_not(profile, data):
    good, bad = (report(one, profile=profile, data=data) for one in (healthy(), hopeless()))
    for found, low, high in ((good, 0.0, 0.3), (bad, 0.7, 1.0)):
        told = found.summary.probability_untrainable
        assert low <= told.sgd.p <= high
        assert low <= told.adam.p <= high
        assert told.sgd.low <= told.sgd.p <= told.sgd.high
        assert told.sgd.lr is None
    assert good.summary.category_probabilities.trains > 0.5
    assert bad.summary.category_probabilities.vanishing > 0.5


def test_the_rate_asked_for_is_judged_for_its_optimizer(data):
    wild, mild = (
        report(healthy(), profile="standard", data=data, optimizer="sgd", lr=lr).summary
        for lr in (0.1, 0.001)
    )
    assert wild.probability_untrainable.sgd.lr == 0.1
    assert wild.probability_untrainable.adam.lr is None
    # a rate a hundred times smaller learns nothing in a hundred steps
    assert mild.probability_untrainable.sgd.p > wild.probability_untrainable.sgd.p


def test_a_base_rate_is_told_back():
    told = report(healthy(), base_rate=0.02).summary.probability_untrainable
    assert told.sgd.base_rate == told.adam.base_rate == 0.02


def test_trained_weights_have_no_probability_and_the_report_says_why():
    one = healthy() | {"norm": "bn", "fault": FROZEN}
    found = report(one)
    assert found.weights.state == "trained"
    assert found.summary.probability_untrainable is None
    assert found.summary.category_probabilities is None
    assert "trained" in next(w.message for w in found.warnings if w.code == "W_NO_PROBABILITY")


def test_without_both_engines_there_is_none():
    found = report(healthy(), engines=("sampled",))
    assert found.summary.probability_untrainable is None
    assert "both engines" in next(w.message for w in found.warnings if w.code == "W_NO_PROBABILITY")


def test_a_network_unlike_those_of_the_fit_is_warned_of():
    found = report(healthy() | {"width": 2000})
    told = found.summary.probability_untrainable
    assert told.sgd.confidence < 0.5
    assert "W_FAR_FROM_CALIBRATION" in {w.code for w in found.warnings}
