"""Ops that copy, drop, join or reorder elements: moments stay, gradients follow the elements."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from gradgauge.analytic import axes
from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Known, Moments, Pulled, Signal, Step, Value, measure


def identity(call: Call) -> Step | None:
    """Identity, Cast, Dropout in inference: the value itself."""
    x = call.signal(0)
    if x is None:
        return None

    def back(flow: Pulled) -> list[Pulled | None]:
        return [flow, *(None for _ in call.inputs[1:])]

    return Step((x,), single(call, back))


def move(call: Call) -> Step | None:
    """Any op that only moves elements, by running it on stand-ins of the same shapes."""
    if not call.signals:
        return None
    made = _run(call, [_blank(value) for value in call.inputs])
    lead = call.signal(call.signals[0])
    if lead is None:
        return None
    moments = _joined(call, [tuple(t.shape) for t in made])
    outputs = tuple(
        Signal(tuple(t.shape), _roles(call, lead, tuple(t.shape)), moments, lead.batch)
        for t in made
    )
    masked = _moved_mask(call, lead)
    if masked is not None:
        outputs = (replace(outputs[0], masked=masked),)
    return Step(outputs, lambda flows: _back(call, outputs, flows))


def embedding(call: Call) -> Step | None:
    """Gather of rows of a stored table by indices that depend on the input."""
    table, indices = call.inputs[0], call.inputs[1]
    if not isinstance(table, Known) or not isinstance(indices, Known):
        return None
    if int(call.attributes.get("axis", 0)) != 0 or not table.tensor.is_floating_point():
        return None
    rows = table.tensor.to(torch.float64)
    shape = (*indices.tensor.shape, *rows.shape[1:])
    column = rows.mean(0)
    shared = float((column * column).mean())
    moments = Moments(float(rows.mean()), float((rows * rows).mean()), shared, shared)
    roles = axes.guess(shape, call.batch)
    out = Signal(shape, roles, moments, call.batch)
    # Each occurrence adds its gradient to its row; rows that do not occur get none.
    per_row = indices.tensor.numel() / max(rows.shape[0], 1)
    return Step((out,), single(call, lambda flow: [Pulled(flow.g * per_row), None]))


def as_signal(value: Value | None, batch: int) -> Value | None:
    """A drawn sample, reduced to its moments, for ops that have a rule only for those."""
    if not isinstance(value, Known) or not value.varying or not value.tensor.is_floating_point():
        return value
    shape = tuple(value.tensor.shape)
    roles = axes.guess(shape, batch)
    return Signal(shape, roles, measure(value.tensor, roles), batch)


def _run(call: Call, arguments: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    made = call.run(*arguments, **call.attributes)
    return tuple(made) if isinstance(made, tuple | list) else (made,)


def _blank(value: Value | None) -> torch.Tensor | None:
    if isinstance(value, Signal):
        return torch.zeros((), dtype=torch.float64).expand(value.shape)
    return None if value is None else value.tensor


def _roles(call: Call, lead: Signal, target: tuple[int, ...]) -> str:
    if call.op == "Transpose":
        perm = call.attributes.get("perm") or range(len(lead.shape) - 1, -1, -1)
        return axes.transposed(lead.axes, list(perm))
    if math.prod(target) == lead.size:
        return axes.reshaped(lead.shape, lead.axes, target, lead.batch)
    if len(target) == len(lead.axes):
        return lead.axes
    if len(target) > len(lead.axes):
        return "p" * (len(target) - len(lead.axes)) + lead.axes
    dropped = int(call.attributes.get("axis", 0)) % len(lead.axes)
    kept = lead.axes[:dropped] + lead.axes[dropped + 1 :]
    return kept if len(kept) == len(target) else axes.guess(target, lead.batch)


def _joined(call: Call, shapes: Sequence[tuple[int, ...]]) -> Moments:
    """Moments over all elements of the output: of its sources by size, and of padded zeros."""
    parts: list[tuple[int, Moments]] = []
    for value in call.inputs:
        if isinstance(value, Signal):
            parts.append((value.size, value.moments))
        elif call.op == "Concat" and value is not None:
            held = value.tensor.to(torch.float64)
            q = float((held * held).mean())
            parts.append((held.numel(), Moments(float(held.mean()), q, q, q)))
    total = sum(size for size, _ in parts)
    if call.op == "Pad":
        total = max(total, math.prod(shapes[0]))
    share = [(size / total, x) for size, x in parts]
    return Moments(
        sum(w * x.m for w, x in share),
        sum(w * x.q for w, x in share),
        sum(w * x.p for w, x in share),
        sum(w * x.t for w, x in share),
    )


def _moved_mask(call: Call, lead: Signal) -> torch.Tensor | None:
    if lead.masked is None or len(call.signals) != 1:
        return None
    whole = lead.masked.expand(lead.shape)
    arguments = [whole if isinstance(v, Signal) else _blank(v) for v in call.inputs]
    return _run(call, arguments)[0]


def _back(
    call: Call, outputs: Sequence[Signal], flows: Sequence[Pulled | None]
) -> list[Pulled | None]:
    if len(call.signals) == 1 and len(outputs) == 1 and flows[0] is not None:
        x = call.signal(call.signals[0])
        if x is not None and x.size == outputs[0].size and flows[0].weights is None:
            return [flows[0] if isinstance(v, Signal) else None for v in call.inputs]
    return _scattered(call, outputs, flows)


def _scattered(
    call: Call, outputs: Sequence[Signal], flows: Sequence[Pulled | None]
) -> list[Pulled | None]:
    """Mean squares carried back element by element: the op's own transpose applied to them."""
    leaves = [_leaf(value) for value in call.inputs]
    with torch.enable_grad():
        made = _run(call, leaves)
    used = [(out, made[i], f) for i, (out, f) in enumerate(zip(outputs, flows, strict=True)) if f]
    weights = [
        torch.full(out.shape, f.g, dtype=torch.float64)
        if f.weights is None
        else f.g * f.weights.reshape(out.shape).to(torch.float64)
        for out, _, f in used
    ]
    asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
    gradients = iter(
        torch.autograd.grad([t for _, t, _ in used], asked, weights, allow_unused=True)
    )
    common = _common(used)
    return [
        _gathered(next(gradients), value, used[0][0], common)
        if leaf is not None and leaf.requires_grad
        else None
        for leaf, value in zip(leaves, call.inputs, strict=True)
    ]


def _leaf(value: Value | None) -> torch.Tensor | None:
    if isinstance(value, Signal):
        return torch.zeros(value.shape, dtype=torch.float64, requires_grad=True)
    if value is None or not value.tensor.is_floating_point():
        return None if value is None else value.tensor
    return value.tensor.detach().to(torch.float64).requires_grad_()


def _common(used: Sequence[tuple[Signal, torch.Tensor, Pulled]]) -> float:
    total = sum(f.g * out.size for out, _, f in used)
    return sum(f.c * out.size for out, _, f in used) / total if total > 0 else 0.0


def _gathered(
    squares: torch.Tensor | None, value: Value | None, out: Signal, common: float
) -> Pulled | None:
    if squares is None:
        return Pulled(0.0)
    g = float(squares.mean())
    if g <= 0 or not isinstance(value, Signal):
        return Pulled(g)
    even = bool((squares == squares.flatten()[0]).all())
    # Of positions a slice left out, nothing is shared; copies of one position add up.
    ratio = out.positions / value.positions
    if ratio > 1 and even:
        return Pulled(g * (1 + (ratio - 1) * common), g * common)
    kept = min(ratio, 1.0)
    return Pulled(g, g * common * kept, None if even else squares / g)
