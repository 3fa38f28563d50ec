"""Specs as ONNX: valid, runnable, the same function as torch's, drawn by their laws."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from gradgauge.errors import InvalidSpec, LimitExceeded
from gradgauge.graph.init import std
from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_spec import export, read_spec
from gradgauge.schema.activations import ACTIVATIONS
from gradgauge.schema.spec import parse_spec
from gradgauge.schema.spec_shapes import count
from tests.specs import BATCH, batch, built, held, layer, run, weight

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_exports_to_a_model_that_onnxruntime_runs(path, tmp_path):
    graph = read_spec(path)
    export(graph, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"input": batch(graph)})
    assert y.shape == (BATCH, 10)
    assert np.isfinite(y).all()
    assert session.get_inputs()[0].shape[0] == session.get_outputs()[0].shape[0] == "N"


def test_the_model_is_of_opset_21_and_says_what_the_spec_said():
    graph = built((4,), layer("dense", units=2), loss="mse", name="tiny")
    assert graph.model.opset_imports == {"": 21}
    assert graph.model.ir_version == 10
    assert (graph.name, graph.format) == ("tiny", "spec")
    assert graph.model.metadata_props["gradgauge.loss"] == "mse"
    assert graph.model.graph.inputs[0].metadata_props == {
        "gradgauge.distribution": "normal",
        "gradgauge.mean": "0.0",
        "gradgauge.scale": "1.0",
    }


def test_nodes_stand_in_the_scope_of_their_path():
    body = [layer("dense", units=4), layer("activation", function="tanh")]
    graph = built(
        (4,),
        layer("dense", units=4),
        layer("repeat", times=2, layers=body),
        layer("residual", layers=body, scale=0.5),
    )
    assert [node.name for node in graph.model.graph] == [
        "/layers.0/Gemm",
        "/layers.1/0/layers.0/Gemm",
        "/layers.1/0/layers.1/Tanh",
        "/layers.1/1/layers.0/Gemm",
        "/layers.1/1/layers.1/Tanh",
        "/layers.2/layers.0/Gemm",
        "/layers.2/layers.1/Tanh",
        "/layers.2/Mul",
        "/layers.2/Add",
    ]
    assert "layers.1.1.layers.0.weight" in graph.laws


def test_the_report_shows_a_repeats_layers_as_one_group():
    body = [layer("dense", units=4), layer("activation", function="tanh")]
    found = find_layers(built((4,), layer("repeat", times=5, layers=body)).model)
    assert [row.kind for row in found] == ["linear", "activation"] * 5
    assert len({row.repeat_group for row in found}) == 2


def test_a_dense_net_is_torchs():
    graph = built(
        (5,),
        layer("dense", units=7, init={"bias": {"kind": "normal", "std": 1.0}}),
        layer("activation", function="gelu"),
        layer("dense", units=3, bias=False),
    )
    x = batch(graph)
    h = nn.functional.linear(
        torch.from_numpy(x), weight(graph, "layers.0.weight"), weight(graph, "layers.0.bias")
    )
    y = nn.functional.linear(nn.functional.gelu(h), weight(graph, "layers.2.weight"))
    held(graph, x, y)


def test_a_dense_layer_over_time_steps_is_torchs():
    graph = built((4, 5), layer("dense", units=7, init={"bias": "ones"}))
    x = batch(graph)
    held(graph, x, torch.from_numpy(x) @ weight(graph, "layers.0.weight") + 1)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("bias", [True, False])
def test_an_rnn_is_torchs(sequences, activation, bias):
    init = {"bias": {"kind": "normal", "std": 0.1}}
    given = {"units": 6, "activation": activation, "bias": bias, "init": init}
    graph = built((9, 5), layer("rnn", return_sequences=sequences, **given))
    rnn = nn.RNN(5, 6, nonlinearity=activation, bias=bias, batch_first=True)
    rnn.weight_ih_l0.data = weight(graph, "layers.0.weight")[0]
    rnn.weight_hh_l0.data = weight(graph, "layers.0.recurrent")[0]
    if bias:
        rnn.bias_ih_l0.data, rnn.bias_hh_l0.data = weight(graph, "layers.0.bias")[0].split(6)
    x = batch(graph)
    every, _ = rnn(torch.from_numpy(x))
    held(graph, x, every if sequences else every[:, -1])


@pytest.mark.parametrize(
    ("given", "pads"),
    [
        ({"kernel": 3}, 0),
        ({"kernel": [3, 2], "stride": [2, 1], "padding": [1, 0]}, (1, 0)),
        ({"kernel": 3, "dilation": 2, "groups": 2, "bias": False}, 0),
        ({"kernel": 3, "padding": "same"}, "same"),
    ],
)
def test_a_convolution_is_torchs(given, pads):
    graph = built((4, 9, 8), layer("conv2d", filters=6, **given))
    conv = nn.Conv2d(
        4,
        6,
        tuple(given["kernel"]) if isinstance(given["kernel"], list) else given["kernel"],
        tuple(given.get("stride", [1, 1])),
        pads,
        given.get("dilation", 1),
        given.get("groups", 1),
        bias=given.get("bias", True),
    )
    conv.weight.data = weight(graph, "layers.0.weight")
    if conv.bias is not None:
        conv.bias.data.zero_()
    x = batch(graph)
    held(graph, x, conv(torch.from_numpy(x)))


def test_same_padding_with_a_stride_is_onnxs_same_upper():
    graph = built((2, 7, 8), layer("conv2d", filters=3, kernel=4, stride=2, padding="same"))
    x = batch(graph)
    ours = run(graph, x)
    conv = graph.model.graph[0]
    del conv.attributes["pads"]
    conv.attributes["auto_pad"] = onnx_ir.AttrString("auto_pad", "SAME_UPPER")
    np.testing.assert_allclose(ours, run(graph, x), rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "module"),
    [
        (layer("max_pool", kernel=3, stride=2, padding=1), nn.MaxPool2d(3, 2, 1)),
        (layer("avg_pool", kernel=2), nn.AvgPool2d(2)),
        (
            layer("avg_pool", kernel=3, stride=2, padding=1),
            nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        ),
        (
            layer("global_avg_pool"),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ),
        (layer("flatten"), nn.Flatten()),
        (layer("batch_norm", epsilon=0.1), nn.BatchNorm2d(4, eps=0.1).eval()),
        (layer("layer_norm"), nn.LayerNorm(7)),
        (layer("layer_norm", axis=1, epsilon=0.1), nn.LayerNorm((8, 7), eps=0.1)),
        (layer("activation", function="softmax", axis=0), nn.Softmax(1)),
    ],
)
def test_other_layers_are_torchs(made, module):
    graph = built((4, 8, 7), made)
    x = batch(graph)
    held(graph, x, module(torch.from_numpy(x)))


F = nn.functional
PHI = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "prelu": lambda x: F.leaky_relu(x, 0.25),
    "thresholded_relu": lambda x: F.threshold(x, 1.0, 0.0),
    "clip": lambda x: x.clamp(-0.5, 0.7),
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "gelu": F.gelu,
    "swish": F.silu,
    "hard_swish": F.hardswish,
    "mish": F.mish,
    "sigmoid": F.sigmoid,
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "tanh": F.tanh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "erf": torch.erf,
    "shrink": F.hardshrink,
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "hardmax": lambda x: F.one_hot(x.argmax(-1), x.shape[-1]).float(),
    "identity": lambda x: x,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
}


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_an_activation_is_torchs_at_its_defaults(function):
    bounds = {"min": -0.5, "max": 0.7} if function == "clip" else {}
    graph = built((40,), layer("activation", function=function, **bounds))
    x = batch(graph)
    held(graph, x, PHI[function](torch.from_numpy(x)))


@pytest.mark.parametrize(
    ("given", "phi"),
    [
        ({"function": "leaky_relu", "alpha": 0.3}, lambda x: F.leaky_relu(x, 0.3)),
        ({"function": "swish", "alpha": 1.7}, lambda x: x * torch.sigmoid(1.7 * x)),
        ({"function": "gelu", "approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
        ({"function": "shrink", "lambd": 0.3, "bias": 0.3}, lambda x: F.softshrink(x, 0.3)),
        (
            {"function": "hard_sigmoid", "alpha": 0.5, "beta": 0.1},
            lambda x: (x / 2 + 0.1).clamp(0, 1),
        ),
    ],
)
def test_an_activations_parameters_reach_its_node(given, phi):
    graph = built((40,), layer("activation", **given))
    x = batch(graph)
    held(graph, x, phi(torch.from_numpy(x)))


def test_a_residual_adds_its_scaled_branch():
    branch = [layer("dense", units=5, init={"weight": {"kind": "identity", "gain": 3}})]
    graph = built((5,), layer("residual", layers=branch, scale=0.5))
    x = batch(graph)
    held(graph, x, torch.from_numpy(2.5 * x))


def test_a_residual_projects_what_its_branch_reshapes():
    branch = [layer("conv2d", filters=6, kernel=3, stride=2, padding=1, init={"weight": "zeros"})]
    graph = built((3, 9, 8), layer("residual", layers=branch, shortcut="projection"))
    x = batch(graph)
    kernel = weight(graph, "layers.0.shortcut.weight")
    held(graph, x, F.conv2d(torch.from_numpy(x), kernel, stride=2))


def test_integers_are_cast_before_the_first_layer():
    graph = read_spec(
        "gradgauge: 1\ninput: {shape: [4], distribution: integers, high: 9}\n"
        "layers: [{type: dense, units: 4, init: {weight: identity}}]"
    )
    x = np.arange(8, dtype=np.int64).reshape(2, 4)
    np.testing.assert_array_equal(run(graph, x), x.astype(np.float32))
    assert graph.model.graph.inputs[0].metadata_props["gradgauge.high"] == "9"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_weight_has_its_law_and_its_size(path):
    graph = read_spec(path)
    floats = {
        name: value.const_value
        for name, value in graph.model.graph.initializers.items()
        if value.dtype == onnx_ir.DataType.FLOAT
    }
    assert set(graph.laws) == set(floats)
    trained = 0
    for name, tensor in floats.items():
        law, drawn = graph.laws[name], tensor.numpy().copy()
        for start, stop, value in law.shifts:
            drawn[..., start:stop] -= value
        assert law.shape == drawn.shape
        trained += 0 if "running" in name or not drawn.shape else drawn.size
        spread = 6 * std(law) / np.sqrt(2 * drawn.size)
        assert abs(drawn.std() - std(law)) <= spread if drawn.size > 50 else True
    assert trained == count(parse_spec(path.read_bytes())).parameters


def test_torchs_default_scales_an_rnn_by_its_units():
    init = dict.fromkeys(("weight", "recurrent", "bias"), "torch_default")
    graph = built((9, 200), layer("rnn", units=100, init=init))
    for part in ("weight", "recurrent", "bias"):
        drawn = weight(graph, f"layers.0.{part}")
        assert drawn.abs().max() <= 0.1
        assert drawn.abs().max() > 0.095


def test_a_weight_is_the_same_whatever_else_is_drawn_and_in_which_order():
    one = built((4,), layer("dense", units=4), layer("dense", units=4), seed=3)
    two = built((4,), layer("dense", units=4, bias=False), layer("dense", units=4), seed=3)
    late, early = weight(one, "layers.1.weight"), weight(one, "layers.0.weight")
    assert torch.equal(weight(two, "layers.0.weight"), early)
    assert torch.equal(weight(two, "layers.1.weight"), late)
    assert not torch.equal(early, late)


def test_another_seed_draws_other_weights():
    a, b = (built((4,), layer("dense", units=4), seed=s) for s in (0, 1))
    assert not torch.equal(weight(a, "layers.0.weight"), weight(b, "layers.0.weight"))


def test_a_path_a_text_and_a_parsed_spec_give_the_same_graph():
    path = EXAMPLES[0]
    graphs = [read_spec(path), read_spec(path.read_text()), read_spec(parse_spec(path.read_text()))]
    written = {onnx_ir.to_proto(g.model).SerializeToString(deterministic=True) for g in graphs}
    assert len(written) == 1
    assert graphs[0].sha256 == graphs[1].sha256


def test_a_network_too_large_is_refused_before_a_node_is_made():
    with pytest.raises(LimitExceeded, match=r"about 10\^18 layers"):
        built((4,), layer("repeat", times=10**18, layers=[layer("dense", units=4)]))


def test_a_file_that_is_not_there_or_too_long_is_named(tmp_path):
    with pytest.raises(InvalidSpec, match=r"No such file.*gone\.yaml"):
        read_spec(tmp_path / "gone.yaml")
    (tmp_path / "long.yaml").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(LimitExceeded, match=r"more than 1,048,576 bytes"):
        read_spec(tmp_path / "long.yaml")


def test_the_files_ending_chooses_the_format(tmp_path):
    (tmp_path / "spec.json").write_text("gradgauge: 1")
    with pytest.raises(InvalidSpec, match="not JSON"):
        read_spec(tmp_path / "spec.json")
