"""Add, Sub, Mul, Div and Where: constants enter exactly, two activations as if independent."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Known, Moments, Pulled, Signal, Step, Value, overlap_along

MASK = -1e4  # a logit this low is a mask, not a value
NEAR_ZERO = 16.0  # a divisor whose mean is fewer than four deviations away
ZERO = Moments(0.0, 0.0, 0.0, 0.0)
ONE = Moments(1.0, 1.0, 1.0, 1.0)


def add(call: Call) -> Step | None:
    """Sum of any number of activations and constants: means add, variances add."""
    return _sum(call, [1.0] * len(call.inputs))


def sub(call: Call) -> Step | None:
    """First input minus second."""
    return _sum(call, [1.0, -1.0])


def mul(call: Call) -> Step | None:
    """Product of independent operands: second moments multiply."""
    out = _output(call)
    factors = [_moments(value, out) for value in call.inputs]
    if not all(f.finite for f in factors):
        return None
    return _product(call, replace(out, moments=_times(factors)), _others(factors))


def div(call: Call) -> Step | None:
    """Quotient: the product with the reciprocal, whose moments are Gaussian expectations."""
    out = _output(call)
    top, bottom = call.inputs
    inverse, slope = _reciprocal(bottom, out)
    a = _moments(top, out)
    if not inverse.finite:
        return None
    # d(a/b)/db = -a/b^2: the slope of the reciprocal squared times q_a.
    to_bottom = Moments(0.0, a.q * slope, 0.0, a.t * slope)
    outcome = replace(out, moments=_times([a, inverse]))
    return _product(call, outcome, [inverse, to_bottom])


def where(call: Call) -> Step | None:
    """A fixed choice between two inputs; a mask of minus infinity is remembered as one."""
    chosen = call.known(0)
    if chosen is None:
        return None
    out = _output(call)
    mask = _fill(call, chosen)
    if mask is not None:
        held = next(v for v in call.inputs if isinstance(v, Signal))
        step = replace(out, moments=held.moments, masked=mask)
        return Step((step,), single(call, lambda flow: _to_all(call, out, flow, [ZERO, ONE, ONE])))
    share = float(chosen.to(torch.float64).mean())
    a, b = (_moments(call.inputs[i], out) for i in (1, 2))
    mixed = _mix(a, b, share)
    scale = [ZERO, Moments(0.0, share, 0.0, share), Moments(0.0, 1 - share, 0.0, 1 - share)]
    return _product(call, replace(out, moments=mixed), scale)


def _sum(call: Call, signs: Sequence[float]) -> Step | None:
    out = _output(call)
    total, masked = ZERO, None
    for value, sign in zip(call.inputs, signs, strict=True):
        masked = _union(masked, _mask(value))
        term = _moments(value, out)
        total = _plus(total, replace(term, m=sign * term.m))
    if not total.finite:
        return None
    return _product(call, replace(out, moments=total, masked=masked), [ONE] * len(call.inputs))


def _product(call: Call, out: Signal, factors: Sequence[Moments]) -> Step:
    """A step whose gradient to each input is the output's times that input's factor."""
    notes = ("independent_operands",) if len(call.signals) > 1 else ()
    return Step((out,), single(call, lambda flow: _to_all(call, out, flow, factors)), notes)


def _to_all(
    call: Call, out: Signal, flow: Pulled, factors: Sequence[Moments]
) -> list[Pulled | None]:
    return [
        None
        if value is None
        else reduced(out, _size(value), Pulled(flow.g * f.q, flow.c * f.t, flow.weights))
        for value, f in zip(call.inputs, factors, strict=True)
    ]


def reduced(out: Signal, shape: tuple[int, ...], flow: Pulled) -> Pulled:
    """Gradient of what was broadcast to `out`: sums over the copies, coherent over positions."""
    padded = (1,) * (len(out.shape) - len(shape)) + shape
    copies = math.prod(out.shape) / max(math.prod(shape), 1)
    spread = 1.0
    for n, have, role in zip(out.shape, padded, out.axes, strict=True):
        if have == 1 and n > 1:
            spread *= {"p": n, "n": max(n / out.batch, 1.0)}.get(role, 1.0)
    weights = flow.weights
    if weights is not None:
        weights = weights.expand(out.shape).sum_to_size(padded).reshape(shape) / copies
    return Pulled(copies * (flow.g + (spread - 1) * flow.c), copies * spread * flow.c, weights)


def _output(call: Call) -> Signal:
    shape = np.broadcast_shapes(*(_size(v) for v in call.inputs if v is not None))
    held = [value for value in call.inputs if isinstance(value, Signal)]
    roles = [_role(held, shape, i) for i in range(len(shape))]
    return Signal(shape, "".join(roles), ZERO, call.batch)


def _role(held: Sequence[Signal], shape: tuple[int, ...], axis: int) -> str:
    """The role of the axis in the first activation that has it at full size."""
    back = axis - len(shape)
    having = [s for s in held if len(s.shape) >= -back]
    full = [s for s in having if s.shape[back] == shape[axis]]
    return next((s.axes[back] for s in full or having), "p")


def _size(value: Value) -> tuple[int, ...]:
    return tuple(value.tensor.shape) if isinstance(value, Known) else value.shape


def _moments(value: Value | None, out: Signal) -> Moments:
    if isinstance(value, Signal):
        x = value.moments
        # One position shown to many: every two of them hold the same value.
        return replace(x, t=x.q) if value.positions == 1 < out.positions else x
    return ONE if value is None else constant(value.tensor, out)


def constant(tensor: torch.Tensor, out: Signal) -> Moments:
    """Moments of a constant as it meets `out`, masked elements left out."""
    held = tensor.to(torch.float64)
    kept = held[held > MASK] if tensor.is_floating_point() else held
    if kept.numel() == 0:
        return ZERO
    m, q = float(kept.mean()), float((kept * kept).mean())
    padded = held.reshape((1,) * (len(out.shape) - held.ndim) + tuple(held.shape))
    moving = [i for i, r in enumerate(out.axes) if r == "p" and padded.shape[i] > 1]
    t = overlap_along(padded, moving) if moving and kept.numel() == held.numel() else q
    return Moments(m, q, q, t)


def _mask(value: Value | None) -> torch.Tensor | None:
    if isinstance(value, Signal):
        return value.masked
    if value is None or not value.tensor.is_floating_point():
        return None
    low = value.tensor <= MASK
    return low if bool(low.any()) and not bool(low.all()) else None


def _union(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return b if a is None else a if b is None else a | b


def _fill(call: Call, chosen: torch.Tensor) -> torch.Tensor | None:
    """The mask, where one side of a Where is one activation and the other minus infinity."""
    for side, low in ((2, ~chosen.bool()), (1, chosen.bool())):
        held = call.exact(side)
        if held is not None and call.signal(3 - side) is not None and bool((held <= MASK).all()):
            return low
    return None


def _plus(a: Moments, b: Moments) -> Moments:
    cross = 2 * a.m * b.m
    return Moments(a.m + b.m, a.q + b.q + cross, a.p + b.p + cross, a.t + b.t + cross)


def _times(factors: Sequence[Moments]) -> Moments:
    return Moments(
        math.prod(f.m for f in factors),
        math.prod(f.q for f in factors),
        math.prod(f.p for f in factors),
        math.prod(f.t for f in factors),
    )


def _others(factors: Sequence[Moments]) -> list[Moments]:
    """For each factor the product of the others."""
    return [_times([*factors[:i], *factors[i + 1 :]]) for i in range(len(factors))]


def _mix(a: Moments, b: Moments, share: float) -> Moments:
    return Moments(
        *(
            share * x + (1 - share) * y
            for x, y in zip((a.m, a.q, a.p, a.t), (b.m, b.q, b.p, b.t), strict=True)
        )
    )


def _reciprocal(value: Value | None, out: Signal) -> tuple[Moments, float]:
    """Moments of 1/b and E 1/b^4; where b comes near zero, as if it were its RMS.

    Expansions in c = v / m^2 of a Gaussian's inverse moments, which have no finite value of their
    own: E 1/b = (1 + c + 3 c^2) / m, E 1/b^2 = (1 + 3 c + 15 c^2) / m^2 and
    E 1/b^4 = (1 + 10 c + 105 c^2) / m^4.
    """
    if isinstance(value, Known):
        inverse = 1.0 / value.tensor.to(torch.float64)
        return constant(inverse, out), float((inverse**4).mean())
    b = _moments(value, out)
    if b.m**2 <= NEAR_ZERO * b.variance:
        square = 1.0 / b.q if b.q > 0 else math.inf
        return Moments(math.sqrt(square), square, square, square), square * square
    c, m2 = b.variance / b.m**2, b.m**2
    mean = (1 + c + 3 * c * c) / b.m
    second = (1 + 3 * c + 15 * c * c) / m2
    p, t = (mean**2 + (second - mean**2) * (o - m2) / max(b.q - m2, 1e-300) for o in (b.p, b.t))
    return Moments(mean, second, p, t), (1 + 10 * c + 105 * c * c) / (m2 * m2)
