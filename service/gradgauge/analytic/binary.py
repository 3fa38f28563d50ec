"""Add, Sub, Mul, Div and Where: constants enter exactly, two activations as if independent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import (
    Flow,
    Known,
    Signal,
    Step,
    Value,
    between,
    signal,
)

MASK = -1e4  # a logit this low is a mask, not a value
NEAR_ZERO = 16.0  # a divisor whose mean is fewer than four deviations away


@dataclass(frozen=True, slots=True)
class Term:
    """One operand at the output's rank: moments, and E x_i x_j at two positions."""

    mean: Tensor
    var: Tensor
    shared: Tensor
    keyed: Tensor | None = None
    cov: Tensor | None = None

    @property
    def second(self) -> Tensor:
        """E x^2."""
        return self.mean * self.mean + self.var

    def pair(self, out: Signal) -> Tensor:
        """E x_i x_j at two positions of one input."""
        return between(self.mean, out.shape, out.places()) + self.shared


def add(call: Call) -> Step | None:
    """Sum of any number of activations and constants: means add, variances add."""
    return _sum(call, [1.0] * len(call.inputs))


def sub(call: Call) -> Step | None:
    """First input minus second."""
    return _sum(call, [1.0, -1.0])


def mul(call: Call) -> Step | None:
    """Product of independent operands: second moments multiply."""
    out = _output(call)
    terms = [_term(value, out) for value in call.inputs]
    return _product(call, out, terms)


def div(call: Call) -> Step | None:
    """Quotient: the product with the reciprocal, whose moments are Gaussian expectations."""
    out = _output(call)
    a, (inverse, slope) = _term(call.inputs[0], out), _reciprocal(call.inputs[1], out)
    made = _times(out, [a, inverse])
    if not made.finite:
        return None

    def back(held: Flow) -> list[Flow | None]:
        # d(a/b)/db = -a/b^2: the slope of the reciprocal squared times E a^2.
        other = Term(torch.zeros_like(slope), a.second * slope, torch.zeros_like(a.shared))
        return [
            _to(held, made, call.inputs[0], inverse),
            _to(held, made, call.inputs[1], other),
        ]

    return Step((made,), single(call, back), _notes(call))


def where(call: Call) -> Step | None:
    """A fixed choice between two inputs; a mask of minus infinity is remembered as one."""
    chosen = call.known(0)
    if chosen is None:
        return None
    out = _output(call)
    mask = _fill(call, chosen)
    if mask is not None:
        place = next(i for i in (1, 2) if isinstance(call.inputs[i], Signal))
        x = _term(call.inputs[place], out)
        step = replace(out, mean=x.mean, var=x.var, shared=x.shared, keyed=x.keyed, masked=mask)
        return Step((step,), single(call, lambda held: _passed(call, step, place, held)))
    taken = chosen.to(torch.float64).reshape([1] * (len(out.shape) - chosen.ndim) + [*chosen.shape])
    a, b = (_term(call.inputs[i], out) for i in (1, 2))
    share = float(taken.mean())
    made = replace(
        out,
        mean=taken * a.mean + (1 - taken) * b.mean,
        var=taken * a.var + (1 - taken) * b.var,
        shared=share * a.shared + (1 - share) * b.shared,
    )

    def back(held: Flow) -> list[Flow | None]:
        sides = [
            Flow(held.g * side, held.shared * part * part)
            for side, part in ((taken, share), (1 - taken, 1 - share))
        ]
        return [None, *(_reduced(made, call.inputs[i + 1], s) for i, s in enumerate(sides))]

    return Step((made,), single(call, back), _notes(call))


def reduced(out: Signal, shape: tuple[int, ...], held: Flow) -> Flow:
    """Gradient of what was broadcast to `out`: sums over the copies, coherent over positions."""
    padded = (1,) * (len(out.shape) - len(shape)) + shape
    lost = [i for i, (n, have) in enumerate(zip(out.shape, padded, strict=True)) if have == 1 < n]
    if not lost:
        return _flat(held, len(out.shape) - len(shape), shape)
    copies = math.prod(out.shape[i] for i in lost)
    alike = math.prod(out.shape[i] for i in lost if out.axes[i] == "p")
    keys = math.prod(out.shape[i] for i in lost if out.axes[i] == "k")
    g, shared = (
        t.expand(_size(t, out, lost)).mean(lost, keepdim=True) for t in (held.g, held.shared)
    )
    keyed = 0.0 if held.keyed is None else float(held.keyed.mean())
    total = copies * (g + (alike - 1) * shared + (keys - 1) * keyed)
    met = Flow(
        total.clamp_min(0.0), copies * alike * shared if alike == 1 else total.clamp_min(0.0)
    )
    return _flat(met, len(out.shape) - len(shape), shape)


def _size(t: Tensor, out: Signal, lost: Sequence[int]) -> list[int]:
    return [out.shape[i] if i in lost and out.axes[i] != "p" else -1 for i in range(t.ndim)]


def _flat(held: Flow, leading: int, shape: tuple[int, ...]) -> Flow:
    if not leading:
        return held
    if len(shape) == 0:
        return Flow(held.g.mean(), held.shared.mean())
    g = held.g.reshape(held.g.shape[leading:]) if _ones(held.g, leading) else held.g.mean()
    shared = held.shared
    shared = shared.reshape(shared.shape[leading:]) if _ones(shared, leading) else shared.mean()
    rank = [1] * len(shape)
    return Flow(g if g.ndim else g.reshape(rank), shared if shared.ndim else shared.reshape(rank))


def _ones(t: Tensor, leading: int) -> bool:
    return all(n == 1 for n in t.shape[:leading])


def _sum(call: Call, signs: Sequence[float]) -> Step | None:
    out = _output(call)
    terms = [_term(value, out) for value in call.inputs]
    masked = None
    for value in call.inputs:
        masked = _union(masked, _mask(value))
    mean = sum((s * t.mean for s, t in zip(signs, terms, strict=True)), start=out.mean)
    var = sum((t.var for t in terms), start=out.var)
    shared = sum((t.shared for t in terms), start=out.shared)
    keyed = [t.keyed for t in terms if t.keyed is not None]
    made = replace(
        out,
        mean=mean,
        var=var,
        shared=shared,
        keyed=sum(keyed[1:], start=keyed[0]) if keyed else None,
        cov=_added(terms, out),
        masked=masked,
        third=_thirds(call, signs, out),
    )
    if not made.finite:
        return None
    return Step((made,), single(call, lambda held: _summed(call, made, held)), _notes(call))


def _thirds(call: Call, signs: Sequence[float], out: Signal) -> Tensor | None:
    """Third central moments of independent terms add up."""
    found = [
        s * _padded(v.third, len(out.shape))
        for s, v in zip(signs, call.inputs, strict=True)
        if isinstance(v, Signal) and v.third is not None
    ]
    return sum(found[1:], start=found[0]) if found else None


def _summed(call: Call, out: Signal, held: Flow) -> list[Flow | None]:
    """The gradient goes to every term; its lean to each by that term's share of the deviation."""
    given: list[Flow | None] = []
    for value in call.inputs:
        part = held
        if held.lean is not None and isinstance(value, Signal):
            share = (_padded(value.var, len(out.shape)) / out.var.clamp_min(1e-300)).sqrt()
            part = replace(held, lean=held.lean * share.clamp_max(1.0))
        given.append(_reduced(out, value, part))
    return given


def _added(terms: Sequence[Term], out: Signal) -> Tensor | None:
    if all(t.cov is None for t in terms):
        return None
    width = out.size
    return sum(
        (torch.diag(t.var.reshape(-1).expand(width)) if t.cov is None else t.cov for t in terms),
        start=torch.zeros((width, width), dtype=torch.float64),
    )


def _product(call: Call, out: Signal, terms: Sequence[Term]) -> Step | None:
    made = _times(out, terms)
    if not made.finite:
        return None

    def back(held: Flow) -> list[Flow | None]:
        given: list[Flow | None] = []
        for i, value in enumerate(call.inputs):
            rest = [t for j, t in enumerate(terms) if j != i]
            other = rest[0] if len(rest) == 1 else _term_of(_times(out, rest))
            given.append(_to(held, made, value, other))
        return given

    return Step((made,), single(call, back), _notes(call))


def _term_of(x: Signal) -> Term:
    return Term(x.mean, x.var, x.shared, x.keyed, x.cov)


def _to(held: Flow, out: Signal, value: Value | None, factor: Term) -> Flow | None:
    """The gradient times a factor independent of it."""
    cov = None
    if held.cov is not None and not factor.var.any():
        line = factor.mean.reshape(-1).expand(out.size)
        cov = held.cov * line[:, None] * line[None, :]
    lean = None
    if held.lean is not None and not factor.var.any():
        lean = held.lean * torch.sign(factor.mean)
    pair = factor.pair(out)
    keyed = None
    if held.keyed is not None:
        keyed = held.keyed * _mean(factor.second, out.places("k"))
    return _reduced(out, value, Flow(held.g * factor.second, held.shared * pair, keyed, cov, lean))


def _mean(t: Tensor, dims: Sequence[int]) -> Tensor:
    return t.mean(list(dims), keepdim=True) if dims else t


def _times(out: Signal, terms: Sequence[Term]) -> Signal:
    mean, second, pair = terms[0].mean, terms[0].second, terms[0].pair(out)
    keyed = terms[0].keyed
    for t in terms[1:]:
        mean, second, pair = mean * t.mean, second * t.second, pair * t.pair(out)
        keyed = t.keyed if keyed is None else keyed
    others = math.prod(float(t.second.mean()) for t in terms if t.keyed is None)
    shared = pair - between(mean, out.shape, out.places())
    return replace(
        out,
        mean=mean,
        var=(second - mean * mean).clamp_min(0.0),
        shared=shared if out.positions > 1 else out.shared,
        keyed=None if keyed is None else keyed * others,
        cov=_scaled_cov(terms, out),
    )


def _scaled_cov(terms: Sequence[Term], out: Signal) -> Tensor | None:
    moving = [t for t in terms if t.var.any()]
    if len(moving) != 1 or moving[0].cov is None:
        return None
    cov = moving[0].cov
    for t in terms:
        if t is not moving[0]:
            line = t.mean.reshape(-1).expand(out.size)
            cov = cov * line[:, None] * line[None, :]
    return cov


def _reduced(out: Signal, value: Value | None, held: Flow) -> Flow | None:
    return None if value is None else reduced(out, size(value), held)


def _passed(call: Call, out: Signal, place: int, held: Flow) -> list[Flow | None]:
    given: list[Flow | None] = [None] * len(call.inputs)
    given[place] = _reduced(out, call.inputs[place], held)
    return given


def _notes(call: Call) -> tuple[str, ...]:
    return ("independent_operands",) if len(call.signals) > 1 else ()


def _output(call: Call) -> Signal:
    shape = np.broadcast_shapes(*(size(v) for v in call.inputs if v is not None))
    held = [value for value in call.inputs if isinstance(value, Signal)]
    roles = [_role(held, shape, i) for i in range(len(shape))]
    zero = torch.zeros([1] * len(shape), dtype=torch.float64)
    return signal(shape, "".join(roles), zero, zero)


def _role(held: Sequence[Signal], shape: tuple[int, ...], axis: int) -> str:
    """The role of the axis in the first activation that has it at full size."""
    back = axis - len(shape)
    having = [s for s in held if len(s.shape) >= -back]
    full = [s for s in having if s.shape[back] == shape[axis]]
    return next((s.axes[back] for s in full or having), "p")


def size(value: Value) -> tuple[int, ...]:
    """The shape of a value of one input."""
    return tuple(value.tensor.shape) if isinstance(value, Known) else value.shape


def _padded(t: Tensor, rank: int) -> Tensor:
    return t.reshape([1] * (rank - t.ndim) + list(t.shape))


def _term(value: Value | None, out: Signal) -> Term:
    rank = len(out.shape)
    one = torch.ones([1] * rank, dtype=torch.float64)
    if value is None:
        return Term(one, 0 * one, 0 * one)
    if isinstance(value, Known):
        held = _padded(value.tensor.to(torch.float64), rank)
        if value.tensor.is_floating_point():
            held = torch.where(held <= MASK, 0.0, held)
        return Term(held, 0 * one, 0 * one)
    mean, var, shared = (_padded(t, rank) for t in (value.mean, value.var, value.shared))
    # One position shown to many: every two of them hold the same value.
    if value.positions == 1 < out.positions:
        shared = var
    keyed = value.keyed
    if keyed is None and "k" in out.axes and value.extent("k") == 1:
        keyed = var
    cov = value.cov if value.size == out.size else None
    return Term(mean, var, shared, None if keyed is None else _padded(keyed, rank), cov)


def _mask(value: Value | None) -> Tensor | None:
    if isinstance(value, Signal):
        return value.masked
    if value is None or not value.tensor.is_floating_point():
        return None
    low = value.tensor <= MASK
    return low if bool(low.any()) and not bool(low.all()) else None


def _union(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a | b


def _fill(call: Call, chosen: Tensor) -> Tensor | None:
    """The mask, where one side of a Where is one activation and the other minus infinity."""
    for side, low in ((2, ~chosen.bool()), (1, chosen.bool())):
        held = call.exact(side)
        if held is not None and call.signal(3 - side) is not None and bool((held <= MASK).all()):
            return low
    return None


def _reciprocal(value: Value | None, out: Signal) -> tuple[Term, Tensor]:
    """Moments of 1/b and E 1/b^4; where b comes near zero, as if it were its RMS.

    Expansions in c = v / m^2 of a Gaussian's inverse moments, which have no finite value of their
    own: E 1/b = (1 + c + 3 c^2) / m, E 1/b^2 = (1 + 3 c + 15 c^2) / m^2 and
    E 1/b^4 = (1 + 10 c + 105 c^2) / m^4.
    """
    b = _term(value, out)
    if isinstance(value, Known):
        return replace(b, mean=1.0 / b.mean), b.mean**-4
    m2 = (b.mean * b.mean).clamp_min(1e-300)
    near = m2 <= NEAR_ZERO * b.var
    c = torch.where(near, 0.0, b.var / m2)
    square = torch.where(near, 1.0 / b.second.clamp_min(1e-300), (1 + 3 * c + 15 * c * c) / m2)
    mean = torch.where(near, square.sqrt(), (1 + c + 3 * c * c) / b.mean)
    fourth = torch.where(near, square * square, (1 + 10 * c + 105 * c * c) / (m2 * m2))
    var = (square - mean * mean).clamp_min(0.0)
    rho = b.shared / _mean(b.var, out.places()).clamp_min(1e-300)
    return Term(mean, var, _mean(var, out.places()) * rho.clamp(0.0, 1.0)), fourth
