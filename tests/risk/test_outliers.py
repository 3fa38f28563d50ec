"""Which layer's weights stand out, on networks whose fault was planted."""

import pytest
from benchmarks.trainability.export import export
from benchmarks.trainability.specs import spec

from gradgauge.graph.layers import find_layers, links
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.pipeline import analyze
from gradgauge.risk.outliers import TOLD, outliers
from gradgauge.schema.options import AnalysisOptions

ONE = spec(5) | {"depth": 6, "init": "he", "norm": "none", "act": "relu", "bias": 0.0}
KINDS = ("dead", "saturated", "huge", "tiny", "symmetric", "rank1")


def standing(one, **more):
    graph = read_onnx(export(one))
    layers = find_layers(graph.model)
    found = outliers(graph.model, layers, links(graph.model, layers), **more)
    return {layer.params[0].split(".")[0]: found[layer.id] for layer in layers if layer.params}


@pytest.mark.parametrize("layer", ["h0", "h3", "h5"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_fault_stands_out_furthest(kind, layer):
    found = standing(ONE | {"fault": {"kind": kind, "layer": layer, "size": 30.0, "seed": 1}})
    assert max(found, key=found.get) == layer
    assert found[layer] >= TOLD
    assert all(size < TOLD for name, size in found.items() if name != layer)


RESIDUAL = next(s for s in map(spec, range(99)) if s["family"] == "resmlp") | {
    "depth": 3, "init": "he", "norm": "none", "act": "relu", "bias": 0.0, "branch": "plain",
    "zero_head": False, "gain": 1.0, "fault": None,
}  # fmt: skip


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("kind", ["huge", "tiny"])
def test_in_a_recurrent_layer_too(cell, kind):
    one = next(s for s in map(spec, range(300)) if s.get("cell") == cell) | {"init": "orthogonal"}
    found = standing(one | {"fault": {"kind": kind, "layer": "rec", "size": 30.0, "seed": 1}})
    assert found["rec"] >= TOLD > found["out"]
    assert max(standing(one | {"fault": None, "gain": 1.0}).values()) < TOLD


@pytest.mark.parametrize("kind", ["symmetric", "rank1", "saturated"])
def test_units_alike_and_shifts_in_a_recurrent_layer(kind):
    one = next(s for s in map(spec, range(99)) if s.get("cell") == "gru") | {"init": "orthogonal"}
    found = standing(one | {"fault": {"kind": kind, "layer": "rec", "size": 100.0, "seed": 1}})
    assert found["rec"] > max(TOLD, found["out"])


def test_a_law_that_is_wrong_everywhere_leaves_none_out():
    found = standing(ONE | {"init": "n001", "fault": None})
    assert max(found.values()) < TOLD


def test_one_head_may_start_at_zero():
    one = ONE | {"fault": {"kind": "zero_head", "layer": "out"}}
    assert standing(one, zeros=True)["out"] > TOLD
    assert max(standing(one).values()) < TOLD


def test_one_branch_of_zeros_among_others_stands_out_all_of_them_do_not():
    planted = {"kind": "zero_branch", "layer": "b1b", "size": 30.0, "seed": 1}
    found = standing(RESIDUAL | {"fault": planted})
    assert found.pop("b1b") >= TOLD > max(found.values())
    assert max(standing(RESIDUAL | {"branch": "zerolast"}).values()) < TOLD
    assert max(standing(RESIDUAL | {"branch": "zerolast", "depth": 1}).values()) < TOLD


def test_the_worst_finding_points_at_the_layer_that_stands_out():
    # a shift behind which every later tanh saturates: the gradient stops first at the last of them
    planted = {"kind": "dead", "layer": "b1b", "size": 30.0, "seed": 1}
    graph = export(RESIDUAL | {"depth": 6, "act": "tanh", "init": "glorot", "fault": planted})
    told = analyze(graph, AnalysisOptions(profile="quick", remediate=False))
    names = {layer.id: layer.name for layer in told.layers}
    assert names[told.findings[0].origins[0]].startswith("b1b")
