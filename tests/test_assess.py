"""Two profiles side by side: when engines agree, and what the loss's scale does to that."""

import numpy as np
import pytest

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.schema.options import AnalysisOptions
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
