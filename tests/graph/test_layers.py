"""Which nodes become rows, what they are called, and what they hold."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gradgauge.graph.layers import find_layers, links
from gradgauge.graph.read_onnx import read_onnx
from tests.exports import export
from tests.handmade import layers_of, made, node

RNG = np.random.default_rng(0)


def weight(*shape):
    return RNG.normal(size=shape)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8))
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Tanh())])
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)
        self.W = nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        x = self.enc(x)
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.head(self.norm(x)) @ self.W).abs()


@pytest.mark.parametrize(("exporter", "opset"), [("torchscript", 17), ("dynamo", 18)])
def test_both_exporters_give_a_module_the_same_scope(exporter, opset):
    model = export(Nested(), (torch.randn(2, 6),), exporter=exporter, opset=opset).model
    layers = layers_of(model.SerializeToString()).values()
    scopes = [layer.scope for layer in layers]
    assert scopes[:7] == [
        "/enc/0",
        "/enc/1",
        "/enc/2",
        "/blocks/0/0",
        "/blocks/0/1",
        "/norm",
        "/head",
    ]
    # what stands in the outermost module is told apart by its node's name
    assert len(set(scopes)) == len(scopes)


@pytest.mark.parametrize(
    "written",
    ["__import__('os').abort()", "[" * 100_000, "7", "['', 'a', ", "{'a': 1}", "''" * 5000],
)
def test_scopes_written_by_somebody_hostile_are_read_as_text(written):
    model = onnx.load_from_string(
        made([node("MatMul", "x W", "y")], {"x": ["N", 3]}, "y", {"W": weight(3, 3)})
    )
    held = model.graph.node[0].metadata_props.add()
    held.key, held.value = "pkg.torch.onnx.name_scopes", written
    layers = layers_of(model.SerializeToString())
    assert isinstance(layers["y"].scope, str)


def test_a_bias_added_behind_a_matmul_is_part_of_the_layer_and_positions_are_not():
    model = made(
        [
            node("MatMul", "x W", "a"),
            node("Add", "a b", "h"),
            node("MatMul", "h V", "c"),
            node("Add", "c positions", "y"),
        ],
        {"x": ["N", 5, 3]},
        "y",
        {"W": weight(3, 4), "b": weight(4), "V": weight(4, 4), "positions": weight(1, 5, 4)},
    )
    layers = layers_of(model)
    assert list(layers) == ["a", "c", "y"]
    assert layers["a"].nodes == ("a", "h")
    assert layers["a"].params == ("W", "b")
    assert layers["a"].output == "h"
    assert layers["c"].params == ("V",)
    assert layers["y"].kind == "other"


def test_a_recurrent_layers_first_parameter_is_a_weight_however_large_its_initial_state():
    model = made(
        [node("RNN", "x W R B - h0", "Y", hidden_size=2), node("Identity", "Y", "y")],
        {"x": [5, 30, 3]},
        "y",
        {"W": weight(1, 2, 3), "R": weight(1, 2, 2), "B": weight(1, 4), "h0": weight(1, 30, 2)},
    )
    (layer,) = layers_of(model).values()
    assert layer.params[:2] == ("W", "R")
    assert set(layer.params) == {"W", "R", "B", "h0"}
    assert layer.param_count == 6 + 4 + 4 + 60


@pytest.mark.parametrize(
    ("nodes", "shape", "axis"),
    [
        ([node("Gemm", "x W", "y", transB=1)], (4, 4), 0),
        ([node("Gemm", "x W", "y")], (4, 4), 1),
        ([node("MatMul", "x W", "y")], (4, 4), -1),
        ([node("Transpose", "W", "V"), node("MatMul", "x V", "y")], (4, 4), 0),
        ([node("Transpose", "W", "V"), node("Gemm", "x V", "y", transB=1)], (4, 4), 1),
        ([node("Identity", "W", "V"), node("Gemm", "x V", "y", transB=1)], (4, 4), 0),
        ([node("Reshape", "W s", "V"), node("MatMul", "x V", "y")], (16,), None),
        ([node("MatMul", "W x", "y")], (4, 4), None),
    ],
)
def test_the_axis_that_counts_units_follows_the_weight_to_where_it_is_stored(nodes, shape, axis):
    stored = {"W": weight(*shape), "s": np.array([4, 4])}
    used = {name for n in nodes for name in n.input}
    model = made(nodes, {"x": ["N", 4]}, "y", {k: v for k, v in stored.items() if k in used})
    (layer,) = layers_of(model).values()
    assert layer.unit_axis == axis


def test_convolutions_count_units_at_the_axis_onnx_stores_them():
    model = made(
        [node("Conv", "x W", "h"), node("ConvTranspose", "h V", "y")],
        {"x": ["N", 3, 8, 8]},
        "y",
        {"W": weight(5, 3, 3, 3), "V": weight(5, 2, 3, 3)},
    )
    layers = layers_of(model)
    assert [layer.unit_axis for layer in layers.values()] == [0, 1]


def test_what_leads_to_no_output_or_depends_on_no_input_is_no_layer():
    model = made(
        [
            node("Transpose", "W", "V"),
            node("MatMul", "x V", "y"),
            node("MatMul", "x V", "unused"),
            node("Relu", "unused", "unused2"),
        ],
        {"x": ["N", 3]},
        "y",
        {"W": weight(4, 3)},
    )
    assert list(layers_of(model)) == ["y"]


def test_noise_is_not_constant():
    model = made(
        [
            node("RandomNormalLike", "W", "noise"),
            node("Add", "x noise", "a"),
            node("MatMul", "a W", "y"),
        ],
        {"x": [3, 3]},
        "y",
        {"W": weight(3, 3)},
    )
    assert layers_of(model)["a"].kind == "add"


def test_depth_is_that_of_the_longest_way_and_links_see_through_plumbing():
    model = made(
        [
            node("Gemm", "x W", "a"),
            node("Relu", "a", "b"),
            node("Gemm", "b W", "c"),
            node("Unsqueeze", "c zero", "c1"),
            node("Squeeze", "c1 zero", "c2"),
            node("Add", "c2 a", "y"),
        ],
        {"x": ["N", 3]},
        "y",
        {"W": weight(3, 3), "zero": np.array([0])},
    )
    graph = read_onnx(model)
    layers = find_layers(graph.model)
    assert {layer.name: layer.depth for layer in layers} == {"a": 0, "b": 1, "c": 2, "y": 3}
    assert links(graph.model, layers) == {
        "L0000": (),
        "L0001": ("L0000",),
        "L0002": ("L0001",),
        "L0003": ("L0002", "L0000"),
    }


def test_kinds_tell_a_parameter_from_another_activation():
    model = made(
        [
            node("Mul", "x scale", "scaled"),
            node("MatMul", "scaled W", "q"),
            node("Transpose", "scaled", "t", perm=[0, 2, 1]),
            node("MatMul", "q t", "scores"),
            node("Softmax", "scores", "weights"),
            node("MatMul", "weights scaled", "mixed"),
            node("Mul", "mixed q", "gated"),
            node("Add", "gated x", "y"),
        ],
        {"x": ["N", 5, 3]},
        "y",
        {"scale": weight(3), "W": weight(3, 3)},
    )
    kinds = {name: layer.kind for name, layer in layers_of(model).items()}
    assert kinds == {
        "scaled": "other",
        "q": "linear",
        "scores": "contraction",
        "weights": "contraction",
        "mixed": "contraction",
        "gated": "gate",
        "y": "add",
    }


def test_an_embedding_is_a_gather_from_a_stored_table_only():
    model = made(
        [
            node("Gather", "table ids", "e"),
            node("Gather", "e first", "y", axis=1),
        ],
        {"ids": (onnx.TensorProto.INT64, ["N", 4])},
        "y",
        {"table": weight(9, 3), "first": np.array(0)},
    )
    layers = layers_of(model)
    assert list(layers) == ["e"]
    assert layers["e"].kind == "embedding"


def test_a_value_used_twice_by_a_node_is_one_input_with_two_edges():
    (layer,) = layers_of(made([node("Mul", "x x", "y")], {"x": ["N", 3]}, "y")).values()
    assert layer.inputs == ("x",)
    assert [(e.consumer, e.index) for e in layer.edges] == [("y", 0), ("y", 1)]


def test_blocks_of_one_shape_share_a_group_and_a_head_of_another_does_not():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 2))
    model = export(net, (torch.randn(2, 4),)).model
    groups = [layer.repeat_group for layer in layers_of(model.SerializeToString()).values()]
    assert groups == ["G000", "G000", "G000", None]
