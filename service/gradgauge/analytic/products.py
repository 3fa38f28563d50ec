"""Products of two activations and softmax: what attention is made of.

Scores Q K^T contract features, attention A V contracts keys. What a row of scores shares does not
change its softmax, and a gradient a row shares does not pass it; what all queries share of a
gradient reaches the values undiminished (THEORY section 1; Cowsik et al. 2024).
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Flow, Signal, Step, between, signal

SEED = 20_240_229
DRAWN = 1 << 19  # logits drawn for one softmax
ROWS = 32  # of one head, where all have one law


def product(call: Call) -> Step | None:
    """MatMul of two activations, taken as independent."""
    a, b = call.signal(0), call.signal(1)
    if a is None or b is None or len(a.shape) < 2 or len(a.shape) != len(b.shape):
        return None
    lead = tuple(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    shape = (*lead, a.shape[-2], b.shape[-1])
    a, b = _wide(a, lead), _wide(b, lead)
    mixing = a.axes[-1] in "pk"
    out = _mixed(a, b, shape) if mixing else _scored(a, b, shape)
    if not out.finite:
        return None
    turned = _mixing_back if mixing else _scoring_back
    shapes = (call.signal(0), call.signal(1))

    def back(held: Flow) -> list[Flow | None]:
        full = replace(held, g=held.g.expand(shape))
        return [
            _narrowed(part, whole)
            for part, whole in zip(turned(a, b, full), shapes, strict=True)
            if whole is not None
        ]

    return Step((out,), single(call, back), ("independent_operands",))


def _wide(x: Signal, lead: tuple[int, ...]) -> Signal:
    """The operand at the product's leading shape, its last two axes at full size."""
    shape = (*lead, *x.shape[-2:])
    shared = x.shared.expand([1 if a == "p" else n for n, a in zip(shape, x.axes, strict=True)])
    return replace(
        x, shape=shape, mean=x.mean.expand(shape), var=x.var.expand(shape), shared=shared
    )


def _narrowed(held: Flow, x: Signal) -> Flow:
    """Sums over the leading axes an operand was repeated along."""
    lost = [i for i, n in enumerate(x.shape) if n == 1 < held.g.shape[i]]
    if not lost:
        return held
    shared = held.shared
    for i in lost:
        shared = shared.sum(i, keepdim=True) if shared.shape[i] > 1 else shared * held.g.shape[i]
    return Flow(held.g.sum(lost, keepdim=True), shared)


def _pair(x: Signal, dim: int) -> Tensor:
    """E x_i x_j for two places along `dim`, size 1 there."""
    n = x.shape[dim]
    if n < 2:
        return x.second
    mean = x.mean.mean(dim, keepdim=True)
    square = (x.mean * x.mean).mean(dim, keepdim=True)
    shared = x.shared if x.axes[dim] == "p" else torch.zeros_like(mean)
    return (n * mean * mean - square) / (n - 1) + shared


def _scored(a: Signal, b: Signal, shape: tuple[int, ...]) -> Signal:
    """Scores: a sum over features of queries times keys."""
    mean = a.mean @ b.mean
    means = a.mean.square() @ b.mean.square()
    var = a.second @ b.second - means
    keyed = a.second @ _pair(b, -1 % len(shape)) - a.mean.square() @ between(
        b.mean, b.shape, [len(shape) - 1]
    )
    queries = between(a.mean, a.shape, [len(shape) - 2])
    shared = (queries + _row(a)) @ b.second - queries @ b.mean.square()
    axes = a.axes[:-1] + ("k" if b.axes[-1] == "p" else b.axes[-1])
    out = signal(shape, axes, mean, var, shared=shared if "p" in axes else None)
    return replace(out, keyed=keyed if "k" in axes else None)


def _row(a: Signal) -> Tensor:
    """What queries share, one row of features."""
    return a.shared if a.shared.shape[-2] == 1 else a.shared.mean(-2, keepdim=True)


def _mixed(a: Signal, b: Signal, shape: tuple[int, ...]) -> Signal:
    """Weights (rows over keys) applied to values."""
    common = _column(b)
    own = (b.var - common).clamp_min(0.0)
    rows = a.mean.sum(-1, keepdim=True)
    mean = a.mean @ b.mean
    apart = (b.mean - b.mean.mean(-2, keepdim=True)).square()
    var = a.second @ own + rows.square() * common + a.var @ apart
    columns = between(a.mean, a.shape, [len(shape) - 2])
    shared = rows.square().mean(-2, keepdim=True) * common + columns.clamp_min(0.0) @ own
    return signal(shape, a.axes[:-1] + b.axes[-1], mean, var, shared=shared)


def _column(b: Signal) -> Tensor:
    """What the values of all keys share, one row of features."""
    return b.shared.mean(-2, keepdim=True) if b.shared.shape[-2] > 1 else b.shared


def _scoring_back(a: Signal, b: Signal, held: Flow) -> tuple[Flow, Flow]:
    """To queries and keys; `keyed` is shared by the keys of one query, `shared` by queries."""
    keys, queries = b.shape[-1], a.shape[-2]
    zero = torch.zeros_like(held.g[..., :1])
    keyed = zero if held.keyed is None else held.keyed.expand(zero.shape)
    across = held.shared.expand((*held.g.shape[:-2], 1, keys))
    pair_b, pair_a = _pair(b, len(b.shape) - 1), _pair(a, len(a.shape) - 2)
    to_a = held.g @ b.second.mT + keys * (keys - 1) * keyed * pair_b.mT
    own = (b.second - pair_b).clamp_min(0.0)
    shared_a = across @ own.mT
    to_b = a.second.mT @ held.g + queries * (queries - 1) * pair_a.mT * across
    shared_b = a.second.mT @ keyed
    return (
        Flow(to_a.clamp_min(0.0), torch.minimum(shared_a, to_a.mean(-2, keepdim=True))),
        Flow(to_b.clamp_min(0.0), shared_b),
    )


def _mixing_back(a: Signal, b: Signal, held: Flow) -> tuple[Flow, Flow]:
    """To weights and values: a value's gradient gathers what all its readers share."""
    common = held.shared.expand((*held.g.shape[:-2], 1, held.g.shape[-1]))
    own = (held.g - common).clamp_min(0.0)
    to_a = held.g @ b.second.mT
    pair = _pair(b, len(b.shape) - 2)
    keyed = held.g @ pair.mT
    shared_a = common @ b.second.mT
    columns = a.mean.sum(-2, keepdim=True).mT
    to_b = a.second.mT @ own + columns.square() * common
    rows = between(a.mean, a.shape, [len(a.shape) - 1])
    lone = [len(a.shape) - 2]
    together = between(columns, columns.shape, lone)
    shared_b = rows.clamp_min(0.0).mT @ own + together * common
    weights = Flow(to_a, shared_a, keyed)
    return weights, Flow(to_b, shared_b)


def softmax(call: Call) -> Step | None:
    """Softmax along one axis, by drawing rows of logits (masked where the logits are).

    The Jacobian passes of a gradient g_j only what the row does not share: A_j (g_j - sum A g),
    of mean square A_j^2 (1 - 2 A_j + sum A^2) for independent g_j.
    """
    x = call.signal(0)
    if x is None or not x.finite:
        return None
    axis = int(call.attributes.get("axis", -1)) % len(x.shape)
    # Before opset 13 it runs over all axes from this one on.
    even = call.run(torch.zeros(x.shape), **call.attributes)
    if round(1.0 / float(even.reshape(-1)[0])) != x.shape[axis]:
        return None
    mean, second, passed = _weights(x, axis)
    keys = x.axes[axis] == "k"
    n = x.shape[axis]
    queries = x.places()
    out = signal(x.shape, x.axes, mean, second - mean * mean)
    typical = between(mean, x.shape, queries).clamp_min(0.0)

    def back(held: Flow) -> list[Flow | None]:
        idle = held.keyed if keys and held.keyed is not None else torch.zeros_like(held.g)
        to_x = (held.g - idle).clamp_min(0.0) * passed
        apart = 1 - float(idle.mean()) / max(float(held.g.mean()), 1e-300)
        shared = held.shared * typical * max(apart, 0.0)
        if not keys:
            return [Flow(to_x, shared * 0.0)]
        # The gradients of one row add up to nothing.
        rows = -to_x.mean(axis, keepdim=True) / max(n - 1, 1)
        return [Flow(to_x, shared, rows)]

    return Step((replace(out, masked=None),), single(call, back), ("gaussian_logits",))


def _weights(x: Signal, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """E A, E A^2 and the mean square of its Jacobian, per element."""
    shared = torch.zeros_like(x.var) if x.keyed is None else x.keyed
    rounds = min(max(DRAWN // max(x.size, 1), 2), 64)
    shape = _few_rows(x, axis)
    spread = (x.var - shared).clamp_min(0.0).expand(shape)
    mean = x.mean.expand(shape)
    generator = torch.Generator().manual_seed(SEED)
    total = torch.zeros((3, *shape), dtype=torch.float64)
    for _ in range(rounds):
        z = torch.randn(shape, generator=generator, dtype=torch.float64)
        logits = mean + spread.sqrt() * z
        if x.masked is not None:
            logits = logits.masked_fill(x.masked, -math.inf)
        rows = torch.nan_to_num(torch.softmax(logits, axis))
        square = rows * rows
        total[0] += rows
        total[1] += square
        total[2] += square * (1 - 2 * rows + square.sum(axis, keepdim=True))
    found = total / rounds
    if shape != x.shape:  # rows of one law: their mean is each one's
        found = found.mean(-2, keepdim=True)
        mean, spread = mean[..., :1, :], spread[..., :1, :]
    # Elements a few draws do not tell apart: the mean of Gaussians' exponentials, normalised.
    smooth = mean + 0.5 * spread
    if x.masked is not None:
        smooth = smooth.masked_fill(x.masked, -math.inf)
    first = torch.nan_to_num(torch.softmax(smooth, axis))
    # How a row concentrates, from all its keys together: of one key the draws are too few.
    square = first * first
    ratio = found[1].mean(axis, keepdim=True) / square.mean(axis, keepdim=True).clamp_min(1e-300)
    return first, square * ratio.clamp_min(1.0), found[2]


def _few_rows(x: Signal, axis: int) -> tuple[int, ...]:
    """The shape to draw: where rows of one head have one law, a part of them tells as much."""
    held = [x.mean, x.var, *(t for t in (x.keyed, x.masked) if t is not None)]
    alike = axis == len(x.shape) - 1 > 0 and all(t.ndim > 1 and t.shape[-2] == 1 for t in held)
    return (*x.shape[:-2], ROWS, x.shape[-1]) if alike and x.shape[-2] > ROWS else x.shape
