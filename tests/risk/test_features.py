"""Features of handmade profiles, whose right answer is plain arithmetic."""

import math

import pytest

from gradgauge.graph.layers import find_layers, links
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.risk.features import CEILING, FAR, FLOOR, Evidence, features
from gradgauge.schema.profile import (
    AnalyticLayer,
    AnalyticProfile,
    Measurement,
    Quantiles,
    SampledLayer,
    SampledProfile,
    TimeProfile,
)
from tests.handmade import made, node, orthogonal

STORED = {name: orthogonal(4, k) for k, name in enumerate("UVW")}
NODES = [
    node("MatMul", "x U", "h0"),
    node("Relu", "h0", "a0"),
    node("MatMul", "a0 V", "h1"),
    node("Sigmoid", "h1", "a1"),
    node("MatMul", "a1 W", "h2"),
]


def median(value):
    return Quantiles(None, None, value, None, None)


def measured(name, value):
    return Measurement(name, value, "", "sampled")


def held(rows=None, *, analytic=None, measurements=(), times=(), loss="cross_entropy"):
    """Evidence on the chain of `NODES`; both profiles by the names of layers."""
    graph = read_onnx(made(NODES, {"x": ["N", 4]}, "h2", STORED)).model
    layers = find_layers(graph)
    ids = {layer.name: layer.id for layer in layers}
    sampled = rows and SampledProfile(
        {ids[name]: row for name, row in rows.items()},
        0,
        (0,),
        loss,
        "data",
        "float32",
        "cpu",
        times=times,
        measurements=measurements,
    )
    told = analytic and AnalyticProfile({ids[name]: row for name, row in analytic.items()}, 0)
    return Evidence(layers, links(graph, layers), told, sampled)


def gradients(*sizes):
    return {
        f"h{k}": SampledLayer(supported=True, log10_grad_param=None if v is None else median(v))
        for k, v in enumerate(sizes)
    }


def test_the_structure_is_counted_from_the_graph_alone():
    found = features(held())
    assert found["heads"] == pytest.approx(math.log10(3))
    assert found["parameters"] == pytest.approx(math.log10(48))
    assert found["width"] == pytest.approx(math.log10(4))
    assert found["outputs"] == pytest.approx(math.log10(4))
    assert (found["saturating"], found["rectifying"]) == (0.5, 0.5)
    assert (found["recurrent"], found["gated"], found["norms"], found["adds"]) == (0, 0, 0, 0)
    assert not [name for name in found if name.startswith(("analytic.", "gradient.", "probe."))]


def test_gradient_norms_of_whole_weights_run_from_input_to_output():
    # 16 numbers a weight: the norm is four times the root mean square
    found = features(held(gradients(-3.0, -1.0, 0.0)))
    four = math.log10(4.0)
    assert found["gradient.first"] == pytest.approx(-3 + four)
    assert found["gradient.last"] == pytest.approx(four)
    assert found["gradient.middle"] == pytest.approx(-1 + four)
    assert found["gradient.step"] == pytest.approx(-3.0)
    assert found["gradient.scatter"] == pytest.approx(math.sqrt(14 / 9))
    total = math.log10(4 * math.sqrt(1e-6 + 1e-2 + 1))
    assert found["gradient.total"] == pytest.approx(total)
    assert found["gradient.zero"] == 0.0


def test_a_gradient_of_zero_is_the_floor_and_is_counted_apart():
    found = features(held(gradients(-math.inf, -1.0, 0.0)))
    four = math.log10(4.0)
    assert found["gradient.least"] == pytest.approx(FLOOR + four)
    assert found["gradient.seen.least"] == pytest.approx(-1 + four)
    assert found["gradient.zero"] == pytest.approx(1 / 3)


def test_layers_the_engine_does_not_support_are_as_if_they_were_not_there():
    rows = gradients(-3.0, -1.0, 0.0) | {"h0": SampledLayer(supported=False)}
    assert features(held(rows))["gradient.first"] == pytest.approx(-1 + math.log10(4))
    nothing = {name: SampledLayer(supported=False) for name in ("h0", "h1", "h2")}
    assert "gradient.first" not in features(held(nothing))


@pytest.mark.parametrize(
    ("mean", "variance", "told"),
    [(30.0, 9.0, 1.0), (0.1, 1.0, 0.0), (2.0, 0.0, FAR), (0.0, 0.0, 0.0), (None, None, 0.0)],
)
def test_an_offset_is_decades_of_mean_over_deviation(mean, variance, told):
    row = SampledLayer(supported=True, forward_mean=mean, forward_variance=variance)
    assert features(held({"h0": row}))["offset.most"] == pytest.approx(told)


def test_dead_repeated_and_broken_units_by_their_worst_and_their_mean():
    rows = {
        "a0": SampledLayer(supported=True, dead_fraction=0.75, zero_gradient=True),
        "h1": SampledLayer(supported=True, dead_fraction=0.25, nonfinite_forward=True),
        "a1": SampledLayer(supported=True, saturated_fraction=0.5),
    }
    found = features(held(rows))
    assert (found["dead.most"], found["dead.mean"]) == (0.75, 0.5)
    assert (found["saturated.most"], found["duplicate.most"]) == (0.5, 0.0)
    assert (found["nonfinite"], found["zero"]) == (1.0, pytest.approx(1 / 3))


def test_the_probe_is_told_by_rate_and_by_its_best_middle_and_worst():
    told = {"memorisation:sgd@0.1": 0.2, "memorisation:sgd@0.01": 0.9, "memorisation:adam@0.01": 1}
    probes = [measured(name, value) for name, value in told.items()]
    probes += [measured("memorisation:sgd@0.001", math.nan), measured("ntk_mean", 100.0)]
    found = features(held(gradients(0.0, 0.0, 0.0), measurements=probes))
    assert (found["probe.sgd.best"], found["probe.sgd.worst"]) == (0.9, 0.2)
    assert (found["probe.sgd@0.1"], found["probe.adam.best"]) == (0.2, 1.0)
    assert found["probe.sgd@0.001"] is None
    assert found["ntk_mean"] == pytest.approx(2.0)
    assert found["target"] == 1.0


def test_of_recurrences_the_one_that_changes_most_speaks():
    times = (
        TimeProfile(("a",), (-1.0, -0.5, 0.0), None, None),
        TimeProfile(("b",), (4.0, 5.0, -2.0, 0.0), None, None),
    )
    growth = measured("gradient_growth_per_step:b", 0.5)
    found = features(held(gradients(0.0, 0.0, 0.0), times=times, measurements=[growth]))
    assert (found["time.change"], found["time.least"], found["time.most"]) == (4.0, -2.0, 5.0)
    assert found["time.steps"] == pytest.approx(math.log10(4))
    assert found["time.growth"] == pytest.approx(2.0)


def test_a_step_without_a_gradient_is_one_that_vanished():
    times = (TimeProfile(("a",), (None, -0.5, 0.0), None, None),)
    assert features(held(gradients(0.0, 0.0, 0.0), times=times))["time.change"] == FLOOR


def test_analytic_features_are_known_without_a_sample_and_count_what_is_not():
    rows = {
        "h0": AnalyticLayer("exact_moments", forward_rms=10.0, log10_grad_param=-2.0, chi=1e-4),
        "h1": AnalyticLayer("exact_moments", forward_rms=1.0, log10_grad_param=1.0, chi=1e2),
        "h2": AnalyticLayer("not_supported"),
    }
    found = features(held(analytic=rows))
    assert (found["analytic.gradient.first"], found["analytic.gradient.last"]) == (-2.0, 1.0)
    assert (found["analytic.heads.first"], found["analytic.heads.last"]) == (1.0, 0.0)
    assert found["analytic.gain.sum"] == pytest.approx(-2.0 + 1.0)
    assert found["analytic.gain.absolute"] == pytest.approx(2.0 + 1.0)
    assert found["analytic.unknown"] == pytest.approx(1 / 3)
    assert "gradient.first" not in found


def test_sizes_beyond_numbers_are_bounded_and_what_is_not_a_number_is_unknown():
    huge = SampledLayer(supported=True, forward_rms=1e300, local_log10_gain=5e4)
    told = [measured("ntk_effective_rank", math.nan)]
    found = features(held({"h0": huge}, measurements=told, loss="random_cotangent"))
    assert found["heads.most"] == CEILING
    assert found["gain.sum"] == 1e3
    assert found["ntk_effective_rank"] is None
    assert found["target"] == 0.0
