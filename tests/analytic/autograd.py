"""What the analytic engine is held against: torch's own export and its own gradients in float64."""

import io
import math
import sys
import warnings
from dataclasses import dataclass

import onnx
import onnx_ir
import torch
from torch import nn

from gradgauge.analytic.propagate import profile
from gradgauge.graph.layers import find_layers
from gradgauge.graph.model import Graph
from gradgauge.graph.reading import read
from gradgauge.schema.profile import AnalyticProfile


@dataclass
class Errors:
    """|log10 error| per linear layer, of activation and weight gradients and of the forward RMS."""

    act: torch.Tensor
    param: torch.Tensor
    forward: torch.Tensor

    def show(self, name):
        columns = (self.act, self.param, self.forward)
        cells = (f"{float(c.median()):.3f} / {float(c.max()):.3f}" for c in columns)
        sys.stdout.write(f"| {name} | {len(self.act)} | {' | '.join(cells)} |\n")


def to_graph(model):
    return Graph(onnx_ir.serde.deserialize_model(model), "t", "onnx", "", 0)


def export(net, x, *, train=False, names=("x",)):
    """ONNX of `net` with a dynamic batch; `train` keeps BatchNorm apart from its convolution."""
    held = io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if train else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.float(),
            x if isinstance(x, tuple) else (x.float() if x.is_floating_point() else x,),
            held,
            opset_version=17,
            dynamo=False,
            input_names=list(names),
            output_names=["y"],
            dynamic_axes={name: {0: "batch"} for name in names},
            training=mode,
            do_constant_folding=False,
        )
    return onnx.load_from_string(held.getvalue())


def analyse(model, **options) -> tuple[tuple, AnalyticProfile]:
    graph = to_graph(model)
    layers = find_layers(graph.model)
    return layers, profile(graph, layers, read(graph.model), **options)


def compare(net, x, *, train=False) -> Errors:
    """Both engines on the Linear and Conv2d layers of `net`, in the order of their calls."""
    layers, got = analyse(export(net, x[:2], train=train))
    rows = [got.layers[layer.id] for layer in layers if layer.kind == "linear"]
    want = measured(net, x, train=train)
    assert len(rows) == len(want)
    deltas = [
        (a.log10_grad_act - w[0], a.log10_grad_param - w[1], math.log10(a.forward_rms) - w[2])
        for a, w in zip(rows, want, strict=True)
    ]
    return Errors(*torch.tensor(deltas).abs().T)


def measured(net, x, *, train=False):
    """log10 RMS of dL/d(output), of one input's weight gradient and of the output, per layer."""
    seen = []

    def keep(module, inputs, output):
        output.retain_grad()
        seen.append((module, inputs[0].detach(), output))

    net.double().train(train)
    kinds = (nn.Linear, nn.Conv2d)
    hooks = [m.register_forward_hook(keep) for m in net.modules() if isinstance(m, kinds)]
    y = net(x.double())
    y.backward(torch.randn(y.shape, dtype=torch.float64, generator=seeded(99)))
    for hook in hooks:
        hook.remove()
    return [
        (_decades(o.grad), _decades(_per_input(m, i, o.grad)), _decades(o.detach()))
        for m, i, o in seen
    ]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def _decades(x):
    return 0.5 * math.log10(float(x.square().mean()))


def _per_input(module, x, g):
    """Weight gradients of each input on its own, stacked (or numbers of the same mean square)."""
    if isinstance(module, nn.Linear) and x.ndim == 2:
        # |g x^T|^2 = |g|^2 |x|^2
        return (g.square().mean(1) * x.square().mean(1)).sqrt()
    if isinstance(module, nn.Linear):
        rows = (t.reshape(len(x), -1, t.shape[-1]) for t in (g, x))
        return torch.einsum("bti,btj->bij", *rows)
    shape, how = (
        module.weight.shape,
        (module.stride, module.padding, module.dilation, module.groups),
    )
    each = (
        torch.nn.grad.conv2d_weight(x[k : k + 1], shape, g[k : k + 1], *how)
        for k in range(min(len(x), 6))
    )
    return torch.stack(list(each))
