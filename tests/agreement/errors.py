"""The analytic engine against float64 autograd, layer by layer, and autograd against itself.

Of a recurrent network the gradients at its input are compared, step by step of time: those at its
layers' outputs say little of what passed through time.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from gradgauge.analytic import backward, forward
from gradgauge.analytic.moments import flow
from gradgauge.analytic.summary import HANIN
from gradgauge.graph.reading import read
from tests.agreement.families import Net
from tests.analytic.autograd import analyse, export, to_graph

# |log10 error| of the activation gradients in decades: (median, 95th percentile) over layers
LIMITS = {
    "MLP": (0.03, 0.15),
    "CNN": (0.03, 0.15),
    "BatchNorm": (0.03, 0.15),
    "transformer": (0.06, 0.20),
    "residual": (0.10, 0.35),
    "LSTM/GRU": (0.15, 0.50),
}
RECURRENT = "LSTM/GRU"
LAYERS = (nn.Linear, nn.Conv2d, nn.LSTM, nn.GRU, nn.RNN)


@dataclass(frozen=True, slots=True)
class Truth:
    """log10 RMS of dL/d(layer output) from two sets of inputs and cotangents; the forward RMS.

    Of recurrent networks: of dL/dx at every step.
    """

    first: np.ndarray
    second: np.ndarray
    forward: np.ndarray

    @property
    def noise(self) -> np.ndarray:
        """|difference| of the two in decades."""
        return np.abs(self.first - self.second)

    @property
    def mean(self) -> np.ndarray:
        """Of both sets together."""
        return 0.5 * np.log10(0.5 * (10 ** (2 * self.first) + 10 ** (2 * self.second)))


def truth(net: Net, *, count: int | None = None) -> Truth:
    """Both measurements of one network; the cotangents are N(0, 1) at every output element."""
    module = net.module().double().train(net.train)
    each = count or inputs_of(net)
    runs = [_gradients(net, module, each, seed) for seed in (1, 2)]
    (first, forward), (second, _) = runs
    return Truth(first, second, forward)


def inputs_of(net: Net) -> int:
    """How many inputs one measurement has: a batch, to BatchNorm."""
    return 48 if len(net.shape) == 3 else 128


def _gradients(net: Net, module: nn.Module, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    seen: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        value.retain_grad()
        seen.append(value)

    hooks = [m.register_forward_hook(keep) for m in module.modules() if isinstance(m, LAYERS)]
    x = net.inputs(count, 1000 * net.seed + seed)
    x = x if net.tokens else x.double().requires_grad_()
    y = module(x)
    generator = torch.Generator().manual_seed(7_000_000 + 1000 * net.seed + seed)
    y.backward(torch.randn(y.shape, dtype=torch.float64, generator=generator))
    for hook in hooks:
        hook.remove()
    if net.family == RECURRENT:
        return np.array([_decades(g) for g in x.grad.unbind(1)]), np.zeros(x.shape[1])
    grads = [v.grad for v in seen]
    return np.array([_decades(g) for g in grads]), np.array([_decades(v.detach()) for v in seen])


def _decades(x: torch.Tensor) -> float:
    return 0.5 * math.log10(float(x.square().mean()))


@dataclass(frozen=True, slots=True)
class Said:
    """The engine's words on the same layers."""

    backward: np.ndarray
    forward: np.ndarray
    band: np.ndarray


def said(net: Net, *, count: int | None = None, **options: Any) -> Said:
    """Analyse the network's own export, read at batches of `count`; `options` go to the engine."""
    model = export(net.module(), net.inputs(2, 0), train=net.train)
    if net.family == RECURRENT:
        return _by_step(model, **options)
    layers, profile = analyse(model, batch=count or inputs_of(net), **options)
    rows = [profile.layers[x.id] for x in layers if x.kind in {"linear", "recurrent"}]
    missing = math.nan
    return Said(
        np.array([missing if r.log10_grad_act is None else r.log10_grad_act for r in rows]),
        np.array([missing if not r.forward_rms else math.log10(r.forward_rms) for r in rows]),
        np.array([missing if r.band_decades is None else r.band_decades for r in rows]),
    )


def _by_step(model: onnx.ModelProto, **options: Any) -> Said:
    """The engine's gradients at the input of a recurrent network."""
    graph = to_graph(model).model
    trace = forward.run(graph, read(graph), **options)
    ends = [v.name for v in graph.graph.outputs]
    seeds = {name: flow(1.0, len(trace.values[name].shape)) for name in ends}
    held = backward.run(trace, seeds).at("x")
    steps = trace.values["x"].shape[1]
    g = held.g.expand(1, steps, -1).mean((0, 2))
    band = HANIN * math.sqrt(5 * backward.inverse_widths(trace, ends)["x"])
    return Said((0.5 * (g.log10() + held.scale)).numpy(), np.zeros(steps), np.full(steps, band))
