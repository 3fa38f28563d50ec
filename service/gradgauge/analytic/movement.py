"""Ops that copy, drop, join or reorder elements: run as they are on the moments themselves."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gradgauge.analytic import axes
from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Flow, Known, Signal, Step, Value, flow, measure, signal
from gradgauge.analytic.trails import Trail

BLOCK = 1024  # rows of a table at a time
MIXING = frozenset({"AffineGrid", "Col2Im", "GridSample", "Resize", "RoiAlign", "Upsample"})


def identity(call: Call) -> Step | None:
    """Identity, Cast: the value itself."""
    x = call.signal(0)
    if x is None:
        return None
    return Step((x,), single(call, lambda held: [held]))


def dropout(call: Call) -> Step | None:
    """Dropout: the value itself, or in training each element kept with probability p, over p.

    E y^2 = E x^2 / p, and what two elements share stays; so do gradients (THEORY section 1).
    """
    x, training = call.signal(0), call.known(2)
    if x is None or (training is None and len(call.inputs) > 2 and call.inputs[2] is not None):
        return None
    ratio = call.known(1)
    kept = 1.0 - (0.5 if ratio is None else float(ratio))
    if training is None or not bool(training.any()) or kept == 1.0:
        return identity(call)
    if not 0.0 < kept < 1.0 or x.masked is not None:
        return None
    more = (1.0 / kept - 1.0) * x.second
    cov = None if x.cov is None else x.cov + torch.diag(more.expand(x.shape).reshape(-1))
    out = replace(x, var=x.var + more, cov=cov, third=None)

    def back(held: Flow) -> list[Flow | None]:
        extra = (1.0 / kept - 1.0) * held.g
        joint = None
        if held.cov is not None:
            joint = held.cov + torch.diag(extra.expand(x.shape).reshape(-1))
        return [replace(held, g=held.g + extra, cov=joint)]

    return Step((out,), single(call, back), ("independent_masks",))


def move(call: Call) -> Step | None:
    """Any op that only moves elements, applied to means and variances; None for those that mix."""
    if not call.signals or call.op in MIXING:
        return None
    lead = call.signal(call.signals[0])
    if lead is None:
        return None
    means = _run(call, [_part(v, "mean") for v in call.inputs])
    variances = _run(call, [_part(v, "var") for v in call.inputs])
    commons = _run(call, [_part(v, "shared") for v in call.inputs])
    if call.op == "Pad":  # what it pads with has no variance
        none = _run(call, [_part(v, "none") for v in call.inputs])
        variances = tuple(v - n for v, n in zip(variances, none, strict=True))
        commons = tuple(c - n for c, n in zip(commons, none, strict=True))
    outputs = tuple(
        _moved(call, lead, *parts) for parts in zip(means, variances, commons, strict=True)
    )
    if len(outputs) == 1:
        outputs = (_with_rest(call, lead, outputs[0]),)
    return Step(outputs, lambda flows: _back(call, outputs, flows))


def _moved(call: Call, lead: Signal, mean: Tensor, var: Tensor, common: Tensor) -> Signal:
    shape = tuple(mean.shape)
    roles = _roles(call, lead, shape)
    places = [i for i, a in enumerate(roles) if a == "p"]
    shared = common.mean(places, keepdim=True) if places else common
    return signal(shape, roles, narrow(mean), narrow(var), shared=narrow(shared))


def narrow(t: Tensor) -> Tensor:
    """Axes along which a tensor is one value seen many times, at size 1."""
    for i, stride in enumerate(t.stride()):
        if stride == 0 and t.shape[i] > 1:
            t = t.narrow(i, 0, 1)
    return t


def _with_rest(call: Call, lead: Signal, out: Signal) -> Signal:
    """What only whole values carry on: a mask, the covariance of a reshaped vector, keys."""
    masked = _moved_mask(call, lead)
    cov = lead.cov if out.size == lead.size and call.op != "Transpose" else None
    keyed = None
    if lead.keyed is not None and "k" in out.axes:
        keyed = lead.keyed.mean().reshape([1] * len(out.shape))
    return replace(out, masked=masked, cov=cov, keyed=keyed)


def embedding(call: Call) -> Step | None:
    """Gather of rows of a stored table by indices that depend on the input."""
    table, indices = call.inputs[0], call.inputs[1]
    if not isinstance(table, Known) or not isinstance(indices, Known):
        return None
    rows = table.tensor
    if int(call.attributes.get("axis", 0)) != 0 or not rows.is_floating_point():
        return None
    shape = (*indices.tensor.shape, *rows.shape[1:])
    line = [*[1] * indices.tensor.ndim, *rows.shape[1:]]
    mean, var = _over_rows(rows)
    roles = axes.guess(shape)
    out = signal(shape, roles, mean.reshape(line), var.reshape(line))
    # Each occurrence adds its gradient to its row; rows that do not occur get none.
    per_row = indices.tensor.numel() / max(rows.shape[0], 1)
    return Step((out,), single(call, lambda held: [flow(float(held.g.mean()) * per_row), None]))


def _over_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over the first axis, a block of rows at a time."""
    flat = rows.reshape(rows.shape[0], -1)
    blocks = [b.to(torch.float64).sum(0) for b in torch.split(flat, BLOCK)]
    mean = torch.stack(blocks).sum(0) / flat.shape[0]
    centre = mean.to(flat.dtype if flat.dtype == torch.float32 else torch.float64)
    apart = [(b.to(centre.dtype) - centre).square().sum(0) for b in torch.split(flat, BLOCK)]
    var = torch.stack(apart).to(torch.float64).sum(0) / flat.shape[0]
    return mean.reshape(rows.shape[1:]), var.reshape(rows.shape[1:])


def as_signal(value: Value | None) -> Value | None:
    """A drawn sample, reduced to its moments, for ops that have a rule only for those."""
    if not isinstance(value, Known) or not value.varying or not value.tensor.is_floating_point():
        return value
    held = value.tensor
    return measure(held.unsqueeze(0), axes.guess(tuple(held.shape)), 1)


def _run(call: Call, arguments: Sequence[Any]) -> tuple[Tensor, ...]:
    made = call.run(*arguments, **call.attributes)
    return tuple(made) if isinstance(made, tuple | list) else (made,)


def _part(value: Value | None, name: str) -> Tensor | None:
    """One moment of an input at full size, or "none"; a constant has no variance."""
    if isinstance(value, Signal):
        held: Tensor = value.mean * 0.0 if name == "none" else getattr(value, name)
        return held.expand(value.shape)
    if value is None or not value.tensor.is_floating_point():
        return None if value is None else value.tensor
    held = value.tensor.to(torch.float64)
    return held if name == "mean" else torch.zeros_like(held)


def _roles(call: Call, lead: Signal, target: tuple[int, ...]) -> str:
    if call.op == "Transpose":
        perm = call.attributes.get("perm") or range(len(lead.shape) - 1, -1, -1)
        return axes.transposed(lead.axes, list(perm))
    if math.prod(target) == lead.size:
        return axes.reshaped(lead.shape, lead.axes, target)
    if len(target) == len(lead.axes):
        return lead.axes
    if len(target) > len(lead.axes):
        return "p" * (len(target) - len(lead.axes)) + lead.axes
    dropped = int(call.attributes.get("axis", 0)) % len(lead.axes)
    kept = lead.axes[:dropped] + lead.axes[dropped + 1 :]
    return kept if len(kept) == len(target) else axes.guess(target)


def _moved_mask(call: Call, lead: Signal) -> Tensor | None:
    if lead.masked is None or len(call.signals) != 1:
        return None
    whole = lead.masked.expand(lead.shape)
    arguments = [whole if isinstance(v, Signal) else _part(v, "mean") for v in call.inputs]
    return _run(call, arguments)[0]


def _back(call: Call, outputs: Sequence[Signal], flows: Sequence[Flow | None]) -> list[Flow | None]:
    """Mean squares carried back element by element: the op's own transpose applied to them."""
    leaves = [_leaf(value) for value in call.inputs]
    with torch.enable_grad():
        made = _run(call, leaves)
    used = [(out, made[i], f) for i, (out, f) in enumerate(zip(outputs, flows, strict=True)) if f]
    asked = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]

    def turned(name: str) -> list[Tensor | None]:
        parts = [_of(f, name).expand(out.shape) for out, _, f in used]
        found = torch.autograd.grad(
            [t for _, t, _ in used], asked, parts, allow_unused=True, retain_graph=True
        )
        return list(found)

    squares, commons = iter(turned("g")), iter(turned("shared"))
    leans = iter(turned("lean")) if any(f.lean is not None for _, _, f in used) else None
    counts = iter(turned("one")) if _copies(call, outputs) else None
    given: list[Flow | None] = []
    for leaf, value in zip(leaves, call.inputs, strict=True):
        if leaf is None or not leaf.requires_grad or value is None:
            given.append(None)
            continue
        parts = (next(squares), next(commons), next(leans) if leans else None)
        count = next(counts) if counts else None
        met = _gathered(parts, count, value, used)
        trails = _trails(call, len(given), outputs, flows)
        given.append(replace(met, trails=trails) if trails else met)
    return given


def _trails(
    call: Call, place: int, outputs: Sequence[Signal], flows: Sequence[Flow | None]
) -> tuple[Trail, ...]:
    """Those of the outputs' gradients that come from this input alone, where they stand in it."""
    value = call.inputs[place]
    held = [(i, t) for i, f in enumerate(flows) if f is not None for t in f.trails]
    if not held or not isinstance(value, Signal):
        return ()
    arguments = [_part(v, "mean") for v in call.inputs]
    for i, v in enumerate(call.inputs):
        if isinstance(v, Signal):
            arguments[i] = torch.full(v.shape, -1)
    arguments[place] = torch.arange(value.size).reshape(value.shape)
    sources = _run(call, arguments)
    moved = [t.moved(sources[i].expand(outputs[i].shape)) for i, t in held]
    return tuple(t for t in moved if t is not None)


def _of(held: Flow, name: str) -> Tensor:
    if name == "one":
        return torch.ones_like(held.g)
    if name == "lean":
        return torch.zeros_like(held.g) if held.lean is None else held.lean * held.g
    return held.g if name == "g" else held.shared


def _copies(call: Call, outputs: Sequence[Signal]) -> bool:
    before = sum(v.size for v in call.inputs if isinstance(v, Signal))
    return sum(out.size for out in outputs) > before


def _leaf(value: Value | None) -> Tensor | None:
    if isinstance(value, Signal):
        return torch.zeros(value.shape, dtype=torch.float64, requires_grad=True)
    if value is None or not value.tensor.is_floating_point():
        return None if value is None else value.tensor
    return value.tensor.detach().to(torch.float64).requires_grad_()


def _gathered(
    parts: tuple[Tensor | None, Tensor | None, Tensor | None],
    count: Tensor | None,
    value: Value,
    used: Sequence[tuple[Signal, Tensor, Flow]],
) -> Flow:
    squares, common, lean = parts
    if squares is None or common is None:
        rank = len(value.shape) if isinstance(value, Signal) else 0
        return flow(0.0, rank)
    if not isinstance(value, Signal):
        return flow(float(squares.mean()))
    if count is not None:
        # Copies of one position add up, coherently where they share.
        squares = squares + (count - 1).clamp_min(0.0) * common
        common = common * count.clamp_min(1.0)
    places = value.places()
    shared = common.mean(places, keepdim=True) if places else common
    if value.positions > 1 and value.positions > used[0][0].positions:
        # Two positions that were both kept: their share of all pairs.
        kept = max(used[0][0].positions - 1, 0) / (value.positions - 1)
        shared = shared * kept
    tilt = None if lean is None else lean / squares.clamp_min(1e-300)
    cov = used[0][2].cov if len(used) == 1 else None
    if value.cov is None or cov is None or cov.shape != value.cov.shape:
        cov = None  # of a part of a concatenation it is not kept
    return Flow(squares, shared, cov=cov, lean=tilt)
