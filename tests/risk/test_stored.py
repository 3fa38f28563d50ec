"""Signals of stored weights on networks whose right answer is arithmetic or numpy's."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.graph.layers import find_layers, links
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.risk.outliers import outliers, scales
from gradgauge.risk.stored import stored
from tests.acceptance.fixtures import export, seeded
from tests.handmade import made, node

SIZE, STEPS = 6, 12


def told(model):
    model = read_onnx(model).model
    layers = find_layers(model)
    sizes = scales(model, layers)
    return stored(model, layers, sizes, outliers(model, layers, links(model, layers), sizes))


class Outputs(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)[0]


def exported(net):
    return told(export(Outputs(net), torch.zeros(STEPS, 2, 4), axes={1: "N"}))


def cell(kind, **more):
    net = seeded(kind(4, SIZE, **more), 3)
    return net, exported(net)


def rows(weight, gate):
    return weight.detach().double().numpy()[gate * SIZE : (gate + 1) * SIZE]


def test_gains_run_from_input_to_output():
    weights = {"A": np.eye(4) * 3.0, "B": np.eye(4) * 0.5}
    nodes = [node("MatMul", "x A", "a"), node("Relu", "a", "r"), node("MatMul", "r B", "y")]
    found = told(made(nodes, {"x": ["N", 4]}, "y", weights))
    assert found["weights.gain.first"] == pytest.approx(math.log10(3.0))
    assert found["weights.gain.last"] == pytest.approx(math.log10(0.5))
    assert found["weights.bias"] == -40.0
    assert not [name for name in found if name.startswith("recurrence")]


def test_a_tanh_cell_keeps_what_the_eigenvalues_of_its_matrix_say():
    net, found = cell(nn.RNN)
    held = np.abs(np.linalg.eigvals(net.weight_hh_l0.detach().double().numpy())).max()
    assert found["recurrence.kept"] == pytest.approx(np.log10(held), abs=1e-6)
    assert found["recurrence.over_time"] == pytest.approx(STEPS * np.log10(held), abs=1e-5)
    assert found["recurrence.steps"] == pytest.approx(np.log10(STEPS))
    assert found["recurrence.inputs"] == pytest.approx(np.log10(4))
    assert (found["recurrence.lstm"], found["recurrence.gru"], found["recurrence.relu"]) == (0,) * 3


def test_a_rectified_cell_keeps_the_root_of_half_of_it():
    net, found = cell(nn.RNN, nonlinearity="relu")
    held = np.abs(np.linalg.eigvals(net.weight_hh_l0.detach().double().numpy())).max()
    assert found["recurrence.kept"] == pytest.approx(np.log10(held * 0.5**0.5), abs=1e-6)
    assert found["recurrence.relu"] == 1.0


def test_an_lstm_keeps_what_its_forget_gates_do():
    net, found = cell(nn.LSTM)
    bias = rows(net.bias_ih_l0, 1) + rows(net.bias_hh_l0, 1)  # torch's order: i f g o
    kept = 1.0 / (1.0 + np.exp(-bias))
    assert found["recurrence.kept"] == pytest.approx(np.log10(kept.max()), abs=1e-6)
    assert found["recurrence.kept.middle"] == pytest.approx(np.log10(np.median(kept)), abs=1e-6)


def test_a_gru_keeps_what_autograd_says_at_state_and_input_zero():
    net, _ = cell(nn.GRU)
    with torch.no_grad():  # at state zero the candidate is tanh of its bias: make that none
        for bias in (net.bias_ih_l0, net.bias_hh_l0):
            bias[2 * SIZE :] = 0.0
    found = exported(net)
    one = nn.GRUCell(4, SIZE)
    one.load_state_dict({k.removesuffix("_l0"): v for k, v in net.state_dict().items()})
    step = lambda h: one(torch.zeros(1, 4), h[None])[0]  # noqa: E731
    jacobian = torch.autograd.functional.jacobian(step, torch.zeros(SIZE)).double().numpy()
    kept = np.abs(np.linalg.eigvals(jacobian)).max()
    assert found["recurrence.kept"] == pytest.approx(np.log10(kept), abs=1e-5)
