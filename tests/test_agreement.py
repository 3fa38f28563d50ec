"""Two engines' words on one layer: when they agree, and the reasons for which they may not."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradgauge.agreement import CLOSE, agree, agreements
from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.profile import (
    AnalyticLayer,
    AnalyticProfile,
    Interval,
    Quantiles,
    SampledLayer,
    SampledProfile,
)
from tests.acceptance.fixtures import Unrolled, export


def analytic(size, *, band=0.0, method="mean_field"):
    return AnalyticLayer(method, log10_grad_act=size, band_decades=band)


def sampled(size, *, half=0.0, zero=False):
    found = None if size is None else Quantiles(None, None, size, None, None)
    around = None if size is None else Interval(size - half, size + half, 0.95, "m")
    return SampledLayer(
        supported=True, log10_grad_act=found, log10_grad_act_ci=around, zero_gradient=zero
    )


def test_close_sizes_agree_and_far_ones_only_within_three_errors():
    assert agree(analytic(-1.0), sampled(-1.0 - CLOSE + 0.01), 0.0).status == "agree"
    far = agree(analytic(-1.0), sampled(-1.6), 0.0)
    assert (far.status, far.delta) == ("disagree", pytest.approx(0.6))
    assert far.explanation
    # errors of 0.2 (band), 0.1 (interval: 1.96 times it) and 0.05 (repeatability)
    wide = agree(analytic(-1.0, band=0.2), sampled(-1.6, half=0.196), 0.0)
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
    found = agree(left, right, 0.0)
    assert found.status == "not_comparable"
    assert why in found.explanation


def spread(size, width):
    """A sampled layer whose inputs' gradients spread over so many decades."""
    row = sampled(size)
    half = width / 2
    quantiles = Quantiles(size - half, size - half / 2, size, size + half / 2, size + half)
    return replace(row, log10_grad_act=quantiles)


def test_a_mean_square_made_by_a_few_inputs_is_not_comparable_with_the_median_input():
    # log-normal of deviation s: the root mean square is s^2 ln 10 decades above the median
    s = 0.8
    above = s * s * math.log(10)
    found = agree(analytic(above), spread(0.0, 3.29 * s), 0.0)
    assert found.status == "not_comparable"
    assert found.delta == pytest.approx(above)
    assert "2.6 decades between inputs" in found.explanation
    assert agree(analytic(-above), spread(0.0, 3.29 * s), 0.0).status == "disagree"
    assert agree(analytic(above), spread(0.0, 0.5), 0.0).status == "disagree"


def told(net, x):
    asked = AnalysisOptions(profile="quick", remediate=False)
    return analyze(export(net, x), asked).layers


def recurrent(make):
    net = Unrolled(width=64)
    with torch.no_grad():
        W = net.cell.weight_hh
        W.copy_(make(torch.randn(64, 64, generator=torch.Generator().manual_seed(4)) / 8))
    return net


@pytest.mark.parametrize(
    ("make", "structured"),
    [
        (lambda W: W, False),
        (lambda W: torch.linalg.qr(W)[0], False),
        (lambda W: (W + W.T) / math.sqrt(2), True),
        (lambda W: W + 3.0 / 64, True),
    ],
    ids=["random", "orthogonal", "symmetric", "rank one on top"],
)
def test_a_recurrent_matrix_with_directions_of_its_own_is_named(make, structured):
    layers = told(recurrent(make), torch.zeros(2, 30, 8))
    first = layers[1]
    assert ("structured_recurrence" in first.analytic.assumptions) is structured
    # what comes after the recurrence is as comparable as ever
    assert "structured_recurrence" not in layers[-1].analytic.assumptions
    noted = [x for x in layers if "structured_recurrence" in x.analytic.assumptions]
    assert all(x.agreement.status != "disagree" for x in noted)


def test_trained_weights_part_the_engines_and_the_report_says_so():
    layers = find_layers(read_onnx(export(nn.Linear(8, 8), torch.zeros(2, 8))).model)
    key = layers[0].id
    apart = AnalyticProfile({key: analytic(-1.0)}, 1)
    held = SampledProfile({key: sampled(-1.6)}, 1, (0,), "random_cotangent", "n", "f", "cpu")
    for state, status in (("trained", "not_comparable"), ("fresh", "disagree")):
        found = agreements(layers, apart, held, lambda state=state: state)[key]
        assert found.status == status
        assert ("trained" in found.explanation) is (state == "trained")
        assert found.delta == pytest.approx(0.6)
    near = replace(held, layers={key: sampled(-1.0)})
    assert agreements(layers, apart, near, lambda: pytest.fail("not asked"))[key].status == "agree"
