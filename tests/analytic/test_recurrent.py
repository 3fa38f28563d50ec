"""Recurrent nodes against float64 autograd: gradients by time step and of the weights."""

import io
import math
import sys
import warnings

import onnx
import onnx_ir
import pytest
import torch
from torch import nn

from gradgauge.analytic import backward, forward
from gradgauge.analytic.moments import Flow
from gradgauge.graph.reading import read
from tests.analytic.autograd import analyse, seeded

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


def export(net, x):
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            (x,),
            held,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}},
        )
    return onnx.load_from_string(held.getvalue())


def by_step(model):
    """log10 RMS of dL/dx_t as the engine sees it."""
    ir = onnx_ir.serde.deserialize_model(model)
    flow = backward.run(forward.run(ir, read(ir)), {"y": Flow(0.0)}).at("x")
    weights = torch.ones(1, STEPS, 1) if flow.weights is None else flow.weights
    return 0.5 * (flow.log10_g + weights.double().mean((0, 2)).expand(STEPS).log10())


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
    assert node.method == ("exact_moments" if kind == "RNN" else "probed")


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
