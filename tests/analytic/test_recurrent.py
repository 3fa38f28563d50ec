"""Recurrent nodes against float64 autograd: gradients by time step and of the weights."""

import math
import sys

import onnx_ir
import pytest
import torch
from torch import nn

from gradgauge.analytic import backward, forward
from gradgauge.analytic.moments import flow
from gradgauge.analytic.trails import Link, Trail
from gradgauge.graph.reading import read
from tests.analytic.autograd import analyse, export, seeded

STEPS, UNITS = 50, 128


class Reader(nn.Module):
    def __init__(self, kind, scale, *, last):
        super().__init__()
        self.cell = getattr(nn, kind)(UNITS, UNITS, batch_first=True)
        if scale:
            nn.init.normal_(self.cell.weight_hh_l0, 0, scale / math.sqrt(UNITS))
        self.head, self.last = nn.Linear(UNITS, 10), last

    def forward(self, x):
        y, _ = self.cell(x)
        return self.head(y[:, -1] if self.last else y)


def by_step(model, steps=STEPS):
    """log10 RMS of dL/dx_t as the engine sees it."""
    ir = onnx_ir.serde.deserialize_model(model)
    trace = forward.run(ir, read(ir))
    rank = len(trace.values["y"].shape)
    met = backward.run(trace, {"y": flow(1.0, rank)}).at("x")
    return 0.5 * (met.g.mean((0, 2)).expand(steps).log10() + met.scale)


@pytest.mark.parametrize(
    ("kind", "scale", "last", "slack"),
    [
        ("RNN", 0.7, True, 0.02),
        ("RNN", 1.5, False, 0.02),
        ("LSTM", None, True, 0.02),
        ("GRU", None, False, 0.02),
    ],
)
def test_gradients_by_time_step_agree_with_autograd(kind, scale, last, slack):
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        net = Reader(kind, scale, last=last)
    x = torch.randn(48, STEPS, UNITS, generator=seeded(1))
    model = export(net, x[:2])
    got = by_step(model)
    leaf = x.double().requires_grad_()
    y = net.double()(leaf)
    y.backward(torch.randn(y.shape, generator=seeded(2), dtype=torch.float64))
    want = 0.5 * leaf.grad.square().mean((0, 2)).log10()
    back = torch.arange(STEPS - 1, -1, -1)  # steps before the last
    error = (got - want).abs()
    sys.stdout.write(f"| {kind} {scale} | {error.median():.3f} / {error.max():.3f} |\n")
    # Tied weights: each step back may add its own deviation of the growth rate.
    assert bool((error <= 0.1 + slack * back).all())

    layers, profile = analyse(model)
    node = next(profile.layers[layer.id] for layer in layers if layer.op == kind)
    hidden, read_in = net.cell.weight_hh_l0.grad, net.cell.weight_ih_l0.grad
    sizes = [0.5 * math.log10(float(g.square().mean()) / len(x)) for g in (hidden, read_in)]
    assert min(sizes) - 0.2 <= node.log10_grad_param <= max(sizes) + 0.2
    assert node.method == "exact_moments"


def test_a_bidirectional_rnn_agrees_with_autograd():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.RNN(UNITS, UNITS, batch_first=True, bidirectional=True)

        def forward(self, x):
            return self.cell(x)[0]

    with torch.random.fork_rng():
        torch.random.manual_seed(3)
        net = Both()
    x = torch.randn(32, STEPS, UNITS, generator=seeded(4))
    got = by_step(export(net, x[:2]))
    leaf = x.double().requires_grad_()
    y = net.double()(leaf)
    y.backward(torch.randn(y.shape, generator=seeded(5), dtype=torch.float64))
    want = 0.5 * leaf.grad.square().mean((0, 2)).log10()
    assert float((got - want).abs().max()) <= 0.05


class Stack(nn.Module):
    def __init__(self, kind, layers, *, both, last, units=96):
        super().__init__()
        make, ways = getattr(nn, kind), 1 + both
        self.cells = nn.ModuleList(
            make(units * (ways if i else 1), units, batch_first=True, bidirectional=both)
            for i in range(layers)
        )
        self.head, self.last = nn.Linear(units * ways, 10), last

    def forward(self, x):
        for cell in self.cells:
            x = cell(x)[0]
        return self.head(x[:, -1] if self.last else x)


@pytest.mark.parametrize(
    ("kind", "layers", "both", "last"),
    [
        ("RNN", 3, False, True),
        ("LSTM", 3, False, True),
        ("GRU", 3, False, True),
        ("GRU", 2, True, False),
        ("LSTM", 3, True, False),
    ],
)
def test_stacked_layers_add_up_what_those_above_send_down_at_different_steps(
    kind, layers, both, last
):
    steps = 24
    with torch.random.fork_rng():
        torch.random.manual_seed(5)
        net = Stack(kind, layers, both=both, last=last)
    x = torch.randn(64, steps, 96, generator=seeded(1))
    got = by_step(export(net, x[:2]), steps)
    leaf = x.double().requires_grad_()
    y = net.double()(leaf)
    y.backward(torch.randn(y.shape, generator=seeded(2), dtype=torch.float64))
    want = 0.5 * leaf.grad.square().mean((0, 2)).log10()
    error = (got - want).abs()
    sys.stdout.write(f"| {layers} {kind} | {error.median():.3f} / {error.max():.3f} |\n")
    assert float(error.median()) <= 0.05
    assert float(error.max()) <= 0.1


def test_a_trail_is_followed_through_what_keeps_its_steps_and_no_further():
    steps, n = 3, 4
    place = torch.arange(steps * n).reshape(steps, n)
    link = Link(lambda _: torch.eye(n), lambda _: torch.eye(n) * 2.0, ())
    trail = Trail((link,), (0, 1, 2), place)
    # Two directions of two units behind one another, as a layer's output [steps, 2, 1, 2] has them.
    second = trail.into((steps, 2, 1, 2), 1, 2)
    assert second is not None
    assert torch.equal(second.links[-1].give(0), torch.eye(4)[:, 2:] * 2.0)
    turned = trail.moved(torch.arange(steps * n).reshape(steps, n).flip(0))
    assert turned is not None
    assert turned.into((steps, 1, 1, n), 0, n) is None
    part = torch.arange(steps * n)
    part[5] = -1
    assert trail.moved(part) is None


class Unrolled(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.enter, self.stay = nn.Linear(UNITS, UNITS), nn.Linear(UNITS, UNITS)
        self.head = nn.Linear(UNITS, 10)
        nn.init.normal_(self.stay.weight, 0, 0.7 / math.sqrt(UNITS))

    def forward(self, x):
        h = torch.zeros(x.shape[0], UNITS, dtype=x.dtype)
        for t in range(self.steps):
            h = torch.tanh(self.enter(x[:, t]) + self.stay(h))
        return self.head(h)


def test_an_unrolled_cell_adds_its_tied_weights_gradients_up():
    steps = 30
    with torch.random.fork_rng():
        torch.random.manual_seed(6)
        net = Unrolled(steps)
    x = torch.randn(64, steps, UNITS, generator=seeded(7))
    layers, profile = analyse(export(net, x[:2]))
    leaf = x.double().requires_grad_()
    y = net.double()(leaf)
    y.backward(torch.randn(y.shape, generator=seeded(8), dtype=torch.float64))
    rows = {name: [] for name in ("enter.weight", "stay.weight")}
    for layer in layers:
        if layer.params and layer.params[0] in rows:
            rows[layer.params[0]].append(profile.layers[layer.id])
    for name, found in rows.items():
        weight = net.get_parameter(name)
        want = 0.5 * math.log10(float(weight.grad.square().mean()) / len(x))
        assert len(found) == steps
        assert {round(row.log10_grad_param, 9) for row in found} == {
            round(found[0].log10_grad_param, 9)
        }
        assert found[0].log10_grad_param == pytest.approx(want, abs=0.1)
        assert "tied_weights_independent" in found[-1].assumptions
    # The first state is a constant: no input reaches that layer, its gradient still is one.
    assert rows["stay.weight"][0].assumptions == ("independent_of_the_input",)
    first = rows["enter.weight"][0].log10_grad_act
    into = 0.5 * math.log10(float(leaf.grad[:, 0].square().mean()))
    spread = float(net.enter.weight.detach().square().sum(0).mean())
    assert first == pytest.approx(into - 0.5 * math.log10(spread), abs=0.1 + 0.02 * steps)
