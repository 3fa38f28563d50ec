"""A node without a rule, run on Gaussian stand-ins of its inputs and on random cotangents."""

import math
from collections.abc import Sequence

import torch

from gradgauge.analytic import axes
from gradgauge.analytic.call import Call
from gradgauge.analytic.moments import (
    Known,
    Pulled,
    Signal,
    Step,
    Value,
    measure,
    overlap_along,
)

SEED = 20_170_213
# Y [steps, directions, batch, units], then the last states [directions, batch, units].
RECURRENT = ("pfbf", "fbf", "fbf")


def probe(call: Call) -> Step:
    """Moments and gradients of one node alone, measured on a draw of the propagated moments."""
    generator = torch.Generator().manual_seed(SEED)
    leaves = [_leaf(value, generator) for value in call.inputs]
    with torch.enable_grad():
        made = call.run(*leaves, **call.attributes)
    tensors = tuple(made) if isinstance(made, tuple | list) else (made,)
    outputs = tuple(_value(call, i, t) for i, t in enumerate(tensors))

    def pull(flows: Sequence[Pulled | None]) -> Sequence[Pulled | None]:
        return _pull(call, leaves, tensors, outputs, flows)

    return Step(outputs, pull, ("gaussian_inputs", "independent_elements"), probed=True)


def held(call: Call) -> Step:
    """The same for a node of constants only: exact inputs, random cotangents.

    It carries a weight's gradient back through the transpose or scale it was stored under.
    """
    return Step((), probe(call).pull)


def draw(signal: Signal, generator: torch.Generator) -> torch.Tensor:
    """A Gaussian tensor of the signal's shape, moments and both overlaps, in float64."""
    x = signal.moments
    base = x.m * x.m
    shared = max(x.r - base, 0.0)
    by_input, by_place = max(x.t - base - shared, 0.0), max(x.p - base - shared, 0.0)
    own = max(x.variance - shared - by_input - by_place, 0.0)
    total = torch.full(signal.shape, x.m, dtype=torch.float64)
    for variance, roles in ((shared, "f"), (by_input, "bnf"), (by_place, "pf"), (own, "bnpf")):
        if variance > 0:
            total = total + math.sqrt(variance) * _noise(signal, roles, generator)
    return total


def _noise(signal: Signal, roles: str, generator: torch.Generator) -> torch.Tensor:
    """Standard normal numbers that differ along axes of these roles only."""
    shape = [n if a in roles else 1 for n, a in zip(signal.shape, signal.axes, strict=True)]
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _leaf(value: Value | None, generator: torch.Generator) -> torch.Tensor | None:
    if isinstance(value, Signal):
        return draw(value, generator).requires_grad_()
    if value is None or not value.tensor.is_floating_point():
        return None if value is None else value.tensor
    return value.tensor.detach().to(torch.float64).requires_grad_(not value.varying)


def _value(call: Call, index: int, tensor: torch.Tensor) -> Value:
    if not tensor.is_floating_point():
        return Known(tensor, varying=True)
    roles = _roles(call, index, tensor)
    return Signal(tuple(tensor.shape), roles, measure(tensor, roles), call.batch)


def _roles(call: Call, index: int, tensor: torch.Tensor) -> str:
    rank = tensor.ndim
    if call.op in {"LSTM", "GRU", "RNN"} and not call.attributes.get("layout"):
        return RECURRENT[index]
    same = (call.signal(i) for i in call.signals)
    lead = next((s.axes for s in same if s is not None and len(s.axes) == rank), None)
    return lead or axes.guess(tuple(tensor.shape), call.batch)


def _pull(
    call: Call,
    leaves: Sequence[torch.Tensor | None],
    tensors: Sequence[torch.Tensor],
    outputs: Sequence[Value],
    flows: Sequence[Pulled | None],
) -> list[Pulled | None]:
    generator = torch.Generator().manual_seed(SEED + 1)
    used = [
        (tensor, _cotangent(out, flow, generator))
        for tensor, out, flow in zip(tensors, outputs, flows, strict=False)
        if flow is not None and isinstance(out, Signal) and tensor.requires_grad
    ]
    asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    if not used or not asked:
        return [None] * len(leaves)
    found = iter(
        torch.autograd.grad(
            [t for t, _ in used], asked, [c for _, c in used], retain_graph=True, allow_unused=True
        )
    )
    return [
        _gathered(call, next(found), value) if leaf is not None and leaf.requires_grad else None
        for leaf, value in zip(leaves, call.inputs, strict=True)
    ]


def _cotangent(out: Signal, flow: Pulled, generator: torch.Generator) -> torch.Tensor:
    common = min(max(flow.c, 0.0), flow.g)
    cotangent = math.sqrt(flow.g - common) * _noise(out, "bnpf", generator)
    if common > 0:
        cotangent = cotangent + math.sqrt(common) * _noise(out, "bnf", generator)
    return cotangent if flow.weights is None else cotangent * flow.weights.sqrt()


def _gathered(call: Call, gradient: torch.Tensor | None, value: Value | None) -> Pulled:
    if gradient is None:
        return Pulled(0.0)
    squares = gradient * gradient
    g = float(squares.mean())
    if not isinstance(value, Signal) or g <= 0:
        return Pulled(g)
    places = [i for i, a in enumerate(value.axes) if a == "p"]
    c = overlap_along(gradient, places) if places and value.positions > 1 else 0.0
    weights = None
    if call.op in {"LSTM", "GRU", "RNN"} and value is call.inputs[0]:
        rest = tuple(range(1, squares.ndim))
        weights = (squares.mean(rest, keepdim=True) / g).expand(value.shape)
    return Pulled(g, min(max(c, 0.0), g), weights)
