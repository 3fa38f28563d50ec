"""Weights drawn anew: the laws of torch's and Keras' layers found again, training undone."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.read_spec import read_spec
from gradgauge.graph.redraw import redrawn
from gradgauge.pipeline import analyze
from gradgauge.risk.weights import judge
from gradgauge.schema.options import AnalysisOptions
from tests.exports import export
from tests.handmade import made, node

LAWS = {
    "torch_default": lambda W, g: nn.init.kaiming_uniform_(W, a=5**0.5, generator=g),
    "he_normal": lambda W, g: nn.init.kaiming_normal_(W, generator=g),
    "he_uniform": lambda W, g: nn.init.kaiming_uniform_(W, generator=g),
    "glorot_normal": lambda W, g: nn.init.xavier_normal_(W, generator=g),
    "glorot_uniform": lambda W, g: nn.init.xavier_uniform_(W, generator=g),
    "lecun_normal": lambda W, g: nn.init.kaiming_normal_(W, nonlinearity="linear", generator=g),
    "normal, deviation 0.02": lambda W, g: nn.init.normal_(W, 0, 0.02, generator=g),
    "orthogonal, gain sqrt(2)": lambda W, g: nn.init.orthogonal_(W, 2**0.5, generator=g),
}
WIDTHS = (48, 160, 96, 200, 64)


def mlp(init=None, seed=0):
    """Of unequal widths, so that laws by fan-in and by both fans differ."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for fan_in, fan_out in itertools.pairwise(WIDTHS):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            for p in layer.parameters():
                nn.init.uniform_(p, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
            if init is not None:
                init(layer.weight, generator)
                nn.init.zeros_(layer.bias)
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def graph_of(net, *inputs):
    return read_onnx(export(net, inputs).model.SerializeToString())


def told(graph):
    return [w.message for w in graph.warnings if w.code == "W_REINITIALIZED"]


def values(graph):
    held = graph.model.graph.initializers
    return {name: v.const_value.numpy() for name, v in held.items() if v.const_value.size > 1}


@pytest.mark.parametrize("name", LAWS)
def test_the_law_of_fresh_weights_is_found(name):
    new = redrawn(graph_of(mlp(LAWS[name]), torch.zeros(1, WIDTHS[0])), 1)
    (message,) = told(new)
    assert f"drawn anew: {name}" in message
    assert "0.weight" in message


@pytest.mark.parametrize("name", LAWS)
def test_what_is_drawn_has_the_deviation_that_training_started_from(name):
    net = mlp(LAWS[name])
    before = [p.std().item() for p in net.parameters() if p.dim() == 2]
    train(net, 60)
    graph = graph_of(net, torch.zeros(1, WIDTHS[0]))
    new = values(redrawn(graph, 1))
    after = [a.std() for a in new.values() if a.ndim == 2]
    np.testing.assert_allclose(after, before, rtol=0.06)
    assert not any(np.array_equal(a, new[k]) for k, a in values(graph).items() if a.ndim == 2)


def train(net, steps):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(256, WIDTHS[0], generator=generator)
    y = (x @ torch.randn(WIDTHS[0], WIDTHS[-1], generator=generator)).argmax(1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


def test_torchs_default_gives_its_biases_too_and_other_laws_zeros():
    drawn = values(redrawn(graph_of(mlp(), torch.zeros(1, 48)), 0))
    bias = drawn["0.bias"]
    assert abs(bias.std() * (3 * 48) ** 0.5 - 1) < 0.1
    he = values(redrawn(graph_of(mlp(LAWS["he_normal"]), torch.zeros(1, 48)), 0))
    assert not he["0.bias"].any()


@pytest.mark.parametrize(("cell", "gates"), [(nn.RNN, 1), (nn.LSTM, 4), (nn.GRU, 3)])
def test_a_recurrent_layer_of_torchs_starts_again_as_torch_starts_it(cell, gates):
    net = cell(24, 40)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            nn.init.uniform_(p, -(40**-0.5), 40**-0.5, generator=generator)
    new = redrawn(graph_of(net, torch.zeros(7, 1, 24)), 1)
    assert sum("torch_default" in message for message in told(new)) == 2
    drawn = [
        a for a in values(new).values() if a.shape in {(1, gates * 40, 24), (1, gates * 40, 40)}
    ]
    assert len(drawn) == 2
    for a in drawn:
        assert abs(a.std() * 120**0.5 - 1) < 0.05


def test_keras_lstm_is_orthogonal_glorot_and_open_to_keep():
    rng = np.random.default_rng(0)
    kernel = np.linalg.qr(rng.normal(size=(128, 32)))[0]  # [4 units, units], columns orthonormal
    bound = (6 / (16 + 128)) ** 0.5
    stored = {
        "W": rng.uniform(-bound, bound, (1, 128, 16)),
        "R": kernel[None],
        "B": np.concatenate([np.zeros(64), np.ones(32), np.zeros(160)])[None],
    }
    nodes = [node("LSTM", "x W R B", "Y", hidden_size=32), node("Identity", "Y", "y")]
    new = redrawn(read_onnx(made(nodes, {"x": [9, 1, 16]}, "y", stored)), 5)
    drawn = values(new)
    np.testing.assert_allclose(drawn["R"][0].T @ drawn["R"][0], np.eye(32), atol=1e-5)
    np.testing.assert_array_equal(drawn["B"], stored["B"].astype(np.float32))
    assert any("glorot_uniform" in message for message in told(new))


def test_norms_and_their_statistics_start_again():
    rng = np.random.default_rng(0)
    stored = {name: rng.uniform(0.5, 2, 8) for name in "gbmv"} | {"W": rng.normal(size=(8, 8))}
    nodes = [node("MatMul", "x W", "h"), node("BatchNormalization", "h g b m v", "y")]
    graph = read_onnx(made(nodes, {"x": ["N", 8]}, "y", stored))
    assert judge(graph, find_layers(graph.model))[0] == "trained"
    new = redrawn(graph, 0)
    assert judge(new, find_layers(new.model))[0] == "fresh"
    drawn = values(new)
    for name, start in zip("gbmv", (1, 0, 0, 1), strict=True):
        np.testing.assert_array_equal(drawn[name], np.full(8, start, np.float32))


def test_no_named_law_leaves_each_its_own_deviation_and_zeros_stay():
    rng = np.random.default_rng(0)
    stored = {"A": 7 * rng.normal(size=(64, 64)), "B": 9 * rng.normal(size=(64, 64))}
    stored["C"] = np.zeros((64, 64))
    nodes = [node("MatMul", "x A", "a"), node("MatMul", "a B", "b"), node("MatMul", "b C", "y")]
    new = redrawn(read_onnx(made(nodes, {"x": ["N", 64]}, "y", stored)), 0)
    assert "own deviation" in told(new)[0]
    drawn = values(new)
    assert abs(drawn["A"].std() / 7 - 1) < 0.05
    assert abs(drawn["B"].std() / 9 - 1) < 0.05
    assert not drawn["C"].any()


def test_a_type_is_kept_and_what_is_no_weight_is_told_to_stay():
    rng = np.random.default_rng(0)
    stored = {
        "W": rng.normal(size=(16, 16)).astype(np.float16),
        "p": np.arange(16, dtype=np.float16),
    }
    nodes = [node("MatMul", "x W", "h"), node("Mul", "h p", "y")]
    graph = read_onnx(made(nodes, {"x": ["N", 16]}, "y", stored))
    new = redrawn(graph, 0)
    drawn = values(new)
    assert drawn["W"].dtype == values(graph)["W"].dtype
    np.testing.assert_array_equal(drawn["p"], values(graph)["p"])
    assert "p" in told(new)[-1]


def test_a_spec_is_drawn_by_its_own_laws_as_ever():
    spec = read_spec(b"gradgauge: 1\ninput: {shape: [8]}\nlayers: [{type: dense, units: 4}]")
    assert redrawn(spec, 3) is spec


def test_a_trained_network_has_a_probability_once_it_is_drawn_anew():
    net = mlp()
    fresh = export(net, (torch.zeros(1, 48),)).model.SerializeToString()
    train(net, 200)
    trained = export(net, (torch.zeros(1, 48),)).model.SerializeToString()
    quick = AnalysisOptions(profile="quick", remediate=False)
    assert analyze(trained, quick).summary.probability_untrainable is None
    again = analyze(trained, quick.model_copy(update={"reinitialize": True}))
    assert again.weights.state == "fresh"
    assert "W_REINITIALIZED" in {w.code for w in again.warnings}
    p = again.summary.probability_untrainable
    first = analyze(fresh, quick).summary.probability_untrainable
    assert abs(p.sgd.p - first.sgd.p) < 0.1
    assert abs(p.adam.p - first.adam.p) < 0.1
