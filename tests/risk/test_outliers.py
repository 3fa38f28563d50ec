"""Which layer's weights stand out, on networks whose fault was planted."""

import pytest
from benchmarks.trainability.export import export
from benchmarks.trainability.specs import spec

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.risk.outliers import TOLD, outliers

ONE = spec(5) | {"depth": 6, "init": "he", "norm": "none", "act": "relu", "bias": 0.0}
KINDS = ("dead", "saturated", "huge", "tiny", "symmetric", "rank1")


def standing(one, **more):
    graph = read_onnx(export(one))
    layers = find_layers(graph.model)
    found = outliers(graph.model, layers, **more)
    return {layer.params[0].split(".")[0]: found[layer.id] for layer in layers if layer.params}


@pytest.mark.parametrize("layer", ["h0", "h3", "h5"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_fault_stands_out_furthest(kind, layer):
    found = standing(ONE | {"fault": {"kind": kind, "layer": layer, "size": 30.0, "seed": 1}})
    assert max(found, key=found.get) == layer
    assert found[layer] >= TOLD
    assert all(size < TOLD for name, size in found.items() if name != layer)


@pytest.mark.parametrize("kind", ["huge", "symmetric", "rank1", "saturated"])
def test_in_a_recurrent_layer_too(kind):
    one = next(s for s in map(spec, range(99)) if s.get("cell") == "gru") | {"init": "orthogonal"}
    found = standing(one | {"fault": {"kind": kind, "layer": "rec", "size": 100.0, "seed": 1}})
    assert found["rec"] > max(TOLD, found["out"])


def test_a_law_that_is_wrong_everywhere_leaves_none_out():
    found = standing(ONE | {"init": "n001", "fault": None})
    assert max(found.values()) < TOLD


def test_zeros_are_named_unless_they_are_left_out():
    one = ONE | {"fault": {"kind": "zero_head", "layer": "out"}}
    assert standing(one)["out"] > TOLD
    assert max(standing(one, zeros=False).values()) < TOLD
