"""Trunk, units and gains read off handmade profiles, whose right answer is plain arithmetic."""

import pytest

from gradgauge.graph.layers import find_layers, links
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.risk import thresholds as t
from gradgauge.risk.case import Case
from gradgauge.risk.depth import exploding, vanishing
from gradgauge.risk.signals import read_signals
from gradgauge.schema.profile import AnalyticLayer, AnalyticProfile, SampledLayer, SampledProfile
from tests.handmade import made, node, orthogonal

W = orthogonal(4, 0)


def case(nodes, outputs, told, *, stored=None, shape=("N", 4)):
    """`told`: by layer, its log10 gradient norm and local gain and, if need be, forward moments."""
    graph = read_onnx(made(nodes, {"x": list(shape)}, outputs, stored or {"W": W})).model
    layers = find_layers(graph)
    names = {layer.name: layer.id for layer in layers}
    held = {
        names[name]: SampledLayer(
            supported=True,
            log10_grad_norm=norm,
            local_log10_gain=gain,
            forward_rms=rms[0] if rms else 1.0,
            forward_mean=rms[1] if rms else 0.0,
        )
        for name, (norm, gain, *rms) in told.items()
    }
    sampled = SampledProfile(held, 0, (0,), "random_cotangent", "synthetic", "float32", "cpu")
    signals = read_signals(layers, links(graph, layers), None, sampled)
    return Case(signals, None, sampled), names


def chain(count, act="Sigmoid"):
    nodes = []
    for i in range(count):
        nodes += [
            node("MatMul", f"{f'a{i - 1}' if i else 'x'} W", f"h{i}"),
            node(act, f"h{i}", f"a{i}"),
        ]
    return nodes[:-1]


def test_a_silent_branch_does_not_count_beside_a_trunk_with_a_gradient():
    nodes = [
        node("MatMul", "x W", "stem"),
        node("MatMul", "stem W", "branch"),
        node("Add", "stem branch", "sum"),
        node("MatMul", "sum W", "head"),
    ]
    told = {"stem": (0.1, 0.0), "branch": (-9.0, 0.0), "sum": (0.0, 0.0), "head": (0.0, 0.0)}
    signals = case(nodes, "head", told)[0].signals
    assert signals.vanishing == 0.0
    assert signals.spread == pytest.approx(0.1)


def test_what_averaging_takes_off_is_put_back():
    nodes = [
        node("MatMul", "x W", "h"),
        node("ReduceMean", "h", "pooled", axes=[1], keepdims=0),
        node("MatMul", "pooled W", "head"),
    ]
    told = {"h": (-1.5, 0.0), "pooled": (0.0, -1.5), "head": (0.0, 0.0)}
    signals = case(nodes, "head", told, shape=("N", 1000, 4))[0].signals
    assert signals.spread == pytest.approx(0.0)


def test_a_unit_is_a_head_with_what_follows_it_alone():
    nodes = [
        node("MatMul", "x W", "h"),
        node("Relu", "h", "a"),
        node("MatMul", "a W", "g"),
        node("Add", "g a", "y"),
    ]
    told = {"h": (0.0, -0.25), "a": (0.0, -0.5), "g": (0.0, 0.125), "y": (0.0, 0.0)}
    found, names = case(nodes, "y", told)
    first, second = found.signals.units
    assert first.members == (names["h"], names["a"])
    assert first.gain == -0.75
    # an addition with another reader's value is no follower
    assert second.members == (names["g"],)


def test_an_average_is_not_laid_to_the_unit_it_follows():
    nodes = [
        node("Conv", "x K", "c"),
        node("GlobalAveragePool", "c", "p"),
        node("Flatten", "p", "f"),
        node("MatMul", "f W", "y"),
    ]
    stored = {"K": orthogonal(4, 1).reshape(4, 4, 1, 1), "W": W}
    told = {"c": (-3.0, -0.1), "p": (0.0, -1.2), "y": (0.0, 0.0)}
    found, names = case(nodes, "y", told, stored=stored, shape=("N", 4, 8, 8))
    unit = found.signals.units[0]
    assert names["p"] in unit.members
    assert (unit.head, unit.gain) == (names["c"], pytest.approx(-0.1))


def test_the_loss_scale_drops_out_of_the_trunk():
    told = {"h0": (-4.0, 0.0), "a0": (-3.0, -1.0), "h1": (-3.0, 0.0)}
    signals = case(chain(2), "h1", told)[0].signals
    assert [size for _, size in signals.trunk] == [-1.0, 0.0]


def falling(**special):
    """Three units of -1.2 decades each, and a head."""
    told = {}
    for i in range(4):
        told[f"h{i}"] = (-1.2 * (3 - i), -0.1)
        told[f"a{i}"] = (-1.2 * (2.5 - i), -1.1)
    del told["a3"]
    return told | special


def test_the_member_with_the_most_extreme_gain_is_to_blame():
    found, names = case(chain(4), "h3", falling())
    (draft,) = vanishing(found)
    assert draft.origins == tuple(names[f"a{i}"] for i in range(3))
    assert set(draft.affected) == {names[f"h{i}"] for i in range(3)}
    assert draft.severity == "high"
    assert exploding(found) == []


@pytest.mark.parametrize("cause", [{"h1": (-2.4, -0.1, 10.0, 9.9)}, {"h1": (-2.4, 0.5)}])
def test_a_head_that_drives_its_activation_out_of_range_is_to_blame_for_it(cause):
    """By a mean of many deviations, or by amplifying: the activation does as it must."""
    found, names = case(chain(4), "h3", falling(**cause))
    (draft,) = vanishing(found)
    assert names["h1"] in draft.origins
    assert names["a1"] not in draft.origins


def test_growth_through_additions_alone_is_laid_to_them():
    nodes = [node("MatMul", "x W", "h0")]
    for i in range(6):
        nodes += [node("MatMul", f"h{i} W", f"b{i}"), node("Add", f"h{i} b{i}", f"h{i + 1}")]
    told = {"h0": (3.0, 0.0)}
    for i in range(6):
        told |= {f"b{i}": (3.0 - (i + 1) / 2, 0.0), f"h{i + 1}": (3.0 - (i + 1) / 2, 0.0)}
    found, names = case(nodes, "h6", told)
    (draft,) = exploding(found)
    assert draft.origins == tuple(names[f"h{i + 1}"] for i in range(6))


def test_the_analytic_engine_stands_in_where_nothing_was_sampled():
    graph = read_onnx(made(chain(2), {"x": ["N", 4]}, "h1", {"W": W})).model
    layers = find_layers(graph)
    rows = {
        layer.id: AnalyticLayer("mean_field", log10_grad_act=-3.0 + i, chi=0.01)
        for i, layer in enumerate(layers)
    }
    signals = read_signals(layers, links(graph, layers), AnalyticProfile(rows, 3), None)
    assert signals.vanishing == pytest.approx(2.0)
    assert signals.units[0].gains == {"L0000": pytest.approx(-1.0), "L0001": pytest.approx(-1.0)}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "none"), (1.999, "none"), (2.0, "medium"), (2.6, "high"), (5.0, "critical")],
)
def test_a_ladder_is_climbed_at_its_thresholds(value, expected):
    assert t.severity(value, t.VANISHING_DECADES) == expected
