"""Every op row of the table, alone: moments and gradients against many drawn inputs.

The first float input of a row's first differentiable case is Gaussian, all others are weights. What
the analytic engine says of the output's RMS and of the input's gradient, by its rule or its probe,
is held against the op run on drawn inputs, its gradients taken by autograd.
"""

import math

import numpy as np
import onnx_ir
import pytest
import torch
from onnx import numpy_helper

from gradgauge.analytic import backward, forward
from gradgauge.analytic.moments import Signal, flow
from gradgauge.graph.reading import read
from gradgauge.sampled.executor import compile_graph
from tests.ops.test_table import SMOOTH

DRAWS = 200
FIRST = {case.row: case for case in reversed(SMOOTH)}


def place_of(case):
    """The input that is an activation: the first float one."""
    return next(
        i
        for i, x in enumerate(case.inputs)
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size and i not in case.skip
    )


def as_model(case, place):
    """The case's model with all inputs but one stored in it."""
    model = case.model()
    for i, x in enumerate(case.inputs):
        if i == place or x is None or isinstance(x, list):
            continue
        held = next(v for v in model.graph.input if v.name == f"x{i}")
        model.graph.input.remove(held)
        model.graph.initializer.append(numpy_helper.from_array(x, f"x{i}"))
    return model


def analytic(model, name):
    """RMS of each output that moves and of the gradient at the input; None where there is none."""
    graph = onnx_ir.serde.deserialize_model(model)
    trace = forward.run(graph, read(graph))
    outs = {v.name: trace.values.get(v.name) for v in graph.graph.outputs}
    moving = {n: v for n, v in outs.items() if isinstance(v, Signal)}
    if not moving:
        return None
    met = backward.run(trace, {n: flow(1.0, len(v.shape)) for n, v in moving.items()})
    held = met.at(name)
    full = {n: math.sqrt(v.q) for n, v in moving.items() if v.size}
    return full, held and 0.5 * held.log10_g


def sampled(model, name, shape):
    run = compile_graph(model, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    outs: dict[str, list[float]] = {}
    total = 0.0
    for _ in range(DRAWS):
        x = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        ys = [y if isinstance(y, torch.Tensor) and y.is_floating_point() else None for y in run(x)]
        for v, y in zip(model.graph.output, ys, strict=True):
            if y is not None:
                outs.setdefault(v.name, []).append(float(y.detach().square().mean()))
        used = [y for y in ys if y is not None and y.requires_grad]
        seeds = [torch.randn(y.shape, generator=generator, dtype=torch.float64) for y in used]
        (g,) = torch.autograd.grad(used, [x], seeds)
        total += float(g.square().mean()) / DRAWS
    return {n: math.sqrt(np.mean(v)) for n, v in outs.items()}, 0.5 * math.log10(total)


# rows whose case is no map of a Gaussian, or has nothing to compare, and why
LEFT_OUT = {
    "Acos": "no value outside [-1, 1]",
    "Acosh": "no value below 1",
    "Asin": "no value outside [-1, 1]",
    "Atanh": "no value outside (-1, 1)",
    "Log": "no value below 0",
    "Reciprocal": "no moments: 1/x has none",
    "ReduceLogSum": "no value below 0",
    "Sqrt": "no value below 0",
    "Tan": "no moments: its poles have none",
    "Ceil": "no gradient",
    "Floor": "no gradient",
    "Round": "no gradient",
    "Sign": "no gradient",
    "If": "a subgraph has no moments",
    "Loop": "a subgraph has no moments",
    "Scan": "a subgraph has no moments",
    "FlexAttention": "a subgraph has no moments",
    "Range": "of no activation",
    "Pow": "no value of a negative base",
    "ReduceProd": "the mean square of a product of twenty Gaussians is not to be drawn",
}
FORWARD, BACKWARD = 0.06, 0.12  # decades
# three units: a mean Jacobian is far from one of its draws
LOOSE = {"RNN": (0.06, 0.25)}
CASES = [case for case in FIRST.values() if case.op not in LEFT_OUT]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_ops_moments_are_those_of_drawn_inputs(case):
    place = place_of(case)
    model, name = as_model(case, place), f"x{place}"
    said = analytic(model, name)
    assert said is not None, "the engine has nothing to say of it"
    outs, gradient = sampled(model, name, case.inputs[place].shape)
    forward_limit, backward_limit = LOOSE.get(case.op, (FORWARD, BACKWARD))
    for output, rms in said[0].items():
        assert rms == pytest.approx(outs[output], rel=10**forward_limit - 1, abs=1e-12)
    assert said[1] == pytest.approx(gradient, abs=backward_limit)
