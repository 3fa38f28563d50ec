"""Layer-sequential unit variance: what torch measures once weights are divided as told."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read
from gradgauge.sampled.rescale import unit_variance
from tests.handmade import made, node

RNG = np.random.default_rng(5)


def moments(model, *, movable=True):
    graph = read_onnx(model).model
    heads = [layer for layer in find_layers(graph) if layer.kind == "linear"]
    reading = read(graph)
    names = {head.id for head in heads} if movable else ()
    found = unit_variance(graph, heads, reading, movable=names, seed=0)
    return [found.get(head.id) for head in heads]


def test_dividing_by_the_deviations_in_order_gives_every_layer_unit_variance():
    scales = [5.0, 1e-3, 40.0]
    W = [s * RNG.normal(size=(30, 30)) for s in scales]
    b = [s * RNG.normal(size=30) for s in scales]
    nodes, stored = [], {}
    for i in range(3):
        nodes += [node("Gemm", f"{f'a{i - 1}' if i else 'x'} W{i} b{i}", f"h{i}")]
        nodes += [node("Relu", f"h{i}", f"a{i}")]
        stored |= {f"W{i}": W[i], f"b{i}": b[i]}
    found = moments(made(nodes, {"x": ["N", 30]}, "a2", stored))
    x = torch.randn(2000, 30, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for i in range(3):
        assert found[i].shift is None
        h = (x @ torch.tensor(W[i]) + torch.tensor(b[i])) / found[i].deviation
        # measured on a batch of 32 inputs of 30 features, checked on another
        assert h.std().item() == pytest.approx(1.0, abs=0.1)
        x = functional.relu(h)


@pytest.mark.parametrize(
    ("nodes", "shape", "kernel"),
    [
        ([node("Conv", "x W b", "y")], ["N", 4, 40], (6, 4, 3)),
        ([node("Conv", "x W b", "y")], ["N", 4, 9, 9], (6, 4, 3, 3)),
        ([node("MatMul", "x W", "m"), node("Add", "m b", "y")], ["N", 3, 7, 4], (4, 6)),
        ([node("Gemm", "x W b", "y")], ["N", 4], (4, 6)),
    ],
)
def test_a_mean_that_dwarfs_the_variance_is_told_unit_by_unit(nodes, shape, kernel):
    bias = np.array([-100.0, -90.0, -80.0, 70.0, 60.0, -500.0])
    W = 0.1 * RNG.normal(size=kernel)
    (found,) = moments(made(nodes, {"x": shape}, "y", {"W": W, "b": bias}))
    # one mean per unit, the bias but for the noise of a batch
    assert found.shift == pytest.approx(bias, abs=0.2)
    assert found.deviation == pytest.approx(np.sqrt((W**2).sum() / 6), rel=0.2)


def test_a_bias_that_is_not_the_layers_own_is_not_moved_but_divided_with_the_rest():
    W, b = 0.1 * RNG.normal(size=(4, 6)), np.full(6, -50.0)
    model = made([node("Gemm", "x W b", "y")], {"x": ["N", 4]}, "y", {"W": W, "b": b})
    (found,) = moments(model, movable=False)
    assert found.shift is None


def test_one_input_is_no_sample_of_a_units_mean():
    W, b = RNG.normal(size=(40, 60)), np.zeros(60)
    model = made([node("Gemm", "x W b", "y")], {"x": [1, 40]}, "y", {"W": W, "b": b})
    (found,) = moments(model)
    assert found.shift is None
    assert found.deviation == pytest.approx(np.sqrt(40), rel=0.4)


def test_an_output_that_does_not_vary_is_left_out():
    W, b = np.zeros((4, 6)), np.zeros(6)
    model = made([node("Gemm", "x W b", "y")], {"x": ["N", 4]}, "y", {"W": W, "b": b})
    assert moments(model) == [None]
