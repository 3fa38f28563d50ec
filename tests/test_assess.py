"""Two profiles side by side: when engines agree, and what the loss's scale does to that."""

import math

import numpy as np
import pytest

from gradgauge.assess import CLOSE, _agree, assess
from gradgauge.pipeline import load, plan
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.profile import AnalyticLayer, Interval, Quantiles, SampledLayer
from tests.handmade import made, node, orthogonal

DEEP = made(
    [node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(4)],
    {"x": ["N", 32]},
    "h3",
    {f"W{i}": np.random.default_rng(i).normal(size=(32, 32)) for i in range(4)},
)


def assessed(model, **options):
    asked = AnalysisOptions(profile="quick", **options)
    graph, reading = load(model, asked)
    return assess(graph, reading, plan(asked, reading))


def analytic(size, *, band=0.0, method="mean_field"):
    return AnalyticLayer(method, log10_grad_act=size, band_decades=band)


def sampled(size, *, half=0.0, zero=False):
    found = None if size is None else Quantiles(None, None, size, None, None)
    around = None if size is None else Interval(size - half, size + half, 0.95, "m")
    return SampledLayer(
        supported=True, log10_grad_act=found, log10_grad_act_ci=around, zero_gradient=zero
    )


def test_close_sizes_agree_and_far_ones_only_within_three_errors():
    assert _agree(analytic(-1.0), sampled(-1.0 - CLOSE + 0.01), 0.0).status == "agree"
    far = _agree(analytic(-1.0), sampled(-1.6), 0.0)
    assert (far.status, far.delta) == ("disagree", pytest.approx(0.6))
    assert far.explanation
    # errors of 0.2 (band), 0.1 (interval: 1.96 times it) and 0.05 (repeatability)
    wide = _agree(analytic(-1.0, band=0.2), sampled(-1.6, half=0.196), 0.0)
    assert wide.status == "agree"
    assert wide.z == pytest.approx(0.6 / math.sqrt(0.2**2 + 0.1**2 + 0.05**2))


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        (None, sampled(0.0), "only one engine"),
        (analytic(0.0), None, "only one engine"),
        (analytic(None), sampled(0.0), "no rule"),
        (analytic(0.0, method="not_supported"), sampled(0.0), "no rule"),
        (analytic(0.0), sampled(None, zero=True), "exactly zero"),
        (analytic(0.0), sampled(None), "nothing was sampled"),
    ],
)
def test_what_cannot_be_compared_says_why(left, right, why):
    found = _agree(left, right, 0.0)
    assert found.status == "not_comparable"
    assert why in found.explanation


def test_engines_agree_whatever_the_scale_of_the_loss():
    for loss in ("random_cotangent", "mse"):
        assessment = assessed(DEEP, loss=loss)
        assert {a.status for a in assessment.agreement.values()} == {"agree"}
    head = assessment.sampled.layers["L0003"].log10_grad_act.q50
    assert head != pytest.approx(0.0, abs=0.3)  # the mean over 32 outputs is another scale


def test_only_the_engines_asked_for_are_run():
    alone = assessed(DEEP, engines=["analytic"])
    assert alone.sampled is None
    assert alone.signals.trunk
    alone = assessed(DEEP, engines=["sampled"])
    assert alone.analytic is None
    assert {a.status for a in alone.agreement.values()} == {"not_comparable"}


def test_layers_links_and_profiles_speak_of_the_same_ids():
    assessment = assessed(
        made([node("MatMul", "x W", "y")], {"x": ["N", 8]}, "y", {"W": orthogonal(8, 0)})
    )
    ids = {layer.id for layer in assessment.layers}
    for held in (
        assessment.before,
        assessment.analytic.layers,
        assessment.sampled.layers,
        assessment.agreement,
        assessment.signals.layers,
    ):
        assert set(held) == ids
