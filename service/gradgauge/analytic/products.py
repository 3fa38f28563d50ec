"""Products of two activations and softmax: what attention is made of.

Scores Q K^T contract features, attention A V contracts positions. Two positions of one row of
scores (two keys of one query) overlap by the moment `t`, which is all that softmax and its Jacobian
need: what a row shares does not change its softmax, and a gradient a row shares does not pass it.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Moments, Pulled, Signal, Step, overlap_along

ROWS = 256  # rows of logits drawn for one softmax
SEED = 20_240_229


def product(call: Call) -> Step | None:
    """MatMul of two activations, taken as independent."""
    a, b = call.signal(0), call.signal(1)
    if a is None or b is None or len(a.shape) < 2 or len(b.shape) < 2:
        return None
    n = a.shape[-1]
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*lead, a.shape[-2], b.shape[-1])
    if len(a.shape) != len(shape) or len(b.shape) != len(shape):
        return None
    mixing = a.axes[-1] == "p"
    moments = _mixed(a.moments, b.moments, n) if mixing else _scored(a.moments, b.moments, n)
    if not moments.finite:
        return None
    out = Signal(shape, a.axes[:-1] + b.axes[-1], moments, a.batch)

    def back(flow: Pulled) -> list[Pulled | None]:
        if mixing:
            return _mixing_back(a, b, flow)
        return _scoring_back(a, b, flow)

    return Step((out,), single(call, back), ("independent_operands", "pooled_moments"))


def _scored(a: Moments, b: Moments, n: int) -> Moments:
    """Scores: a sum over n features."""
    rest = n * (n - 1) * a.m**2 * b.m**2
    return Moments(n * a.m * b.m, n * a.q * b.q + rest, n * a.p * b.p + rest, n * a.q * b.t + rest)


def _mixed(a: Moments, b: Moments, n: int) -> Moments:
    """Weights a (rows over n positions) applied to values b."""
    pairs, m2 = n * (n - 1), a.m**2
    return Moments(
        n * a.m * b.m,
        n * a.q * b.q + pairs * a.t * b.t,
        n * a.p * b.p + pairs * m2 * b.r,
        n * m2 * b.q + pairs * m2 * b.t,
    )


def _scoring_back(a: Signal, b: Signal, flow: Pulled) -> list[Pulled | None]:
    """To queries and keys; `flow.c` is shared by the keys of one query."""
    keys, queries = b.shape[-1], a.shape[-2]
    x, y = a.moments, b.moments
    to_a = keys * flow.g * y.q + keys * (keys - 1) * flow.c * y.t
    to_b = queries * flow.g * x.q
    return [Pulled(max(to_a, 0.0)), Pulled(to_b, queries * flow.c * x.q)]


def _mixing_back(a: Signal, b: Signal, flow: Pulled) -> list[Pulled | None]:
    """To weights and values: a value's gradient gathers what all its readers share."""
    queries, n, width = a.shape[-2], a.shape[-1], b.shape[-1]
    x, y = a.moments, b.moments
    pairs = queries * (queries - 1) * x.m**2
    to_b = queries * x.q * flow.g + pairs * flow.c
    common = queries * x.t * flow.g + pairs * flow.c
    to_a = Pulled(width * flow.g * y.q, width * flow.g * y.t)
    return [to_a, Pulled(to_b, min(common, to_b))] if n > 1 else [to_a, Pulled(to_b)]


def softmax(call: Call) -> Step | None:
    """Softmax along one axis, by drawing rows of logits (masked where the logits are).

    The Jacobian passes of a gradient g_j only what the row does not share: A_j (g_j - sum A g),
    of mean square A_j^2 (1 - 2 A_j + sum A^2) for independent g_j.
    """
    x = call.signal(0)
    if x is None or not x.moments.finite:
        return None
    axis = int(call.attributes.get("axis", -1)) % len(x.shape)
    shared = x.moments.t if x.axes[axis] == "p" else x.moments.m**2
    rows, twins = _weights(x, axis, shared)
    square = rows * rows
    jacobian = square * (1 - 2 * rows + square.sum(1, keepdim=True))
    passed, n = float(jacobian.mean()), x.shape[axis]
    moments = Moments(
        float(rows.mean()),
        float(square.mean()),
        float((rows * twins).mean()),
        overlap_along(rows, [1]),
    )
    keys = x.axes[axis] == "p"

    def back(flow: Pulled) -> list[Pulled | None]:
        idle = flow.c if keys else 0.0
        to_x = max(flow.g - idle, 0.0) * passed
        return [Pulled(to_x, -to_x / (n - 1) if keys and n > 1 else 0.0)]

    out = replace(x, moments=moments, masked=None)
    return Step((out,), single(call, back), ("gaussian_logits",))


def _weights(x: Signal, axis: int, shared: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax rows of two inputs whose logits overlap as the signal's do."""
    n = x.shape[axis]
    generator = torch.Generator().manual_seed(SEED)
    spread = max(x.moments.q - shared, 0.0)
    across = x.moments.r if x.axes[axis] == "p" else x.moments.m**2
    rho = min(max((x.moments.p - across) / spread, 0.0), 1.0) if spread > 0 else 1.0
    base, one, two = torch.randn((3, ROWS, n), generator=generator, dtype=torch.float64)
    both = [
        math.sqrt(spread) * (math.sqrt(rho) * base + math.sqrt(1 - rho) * own) for own in (one, two)
    ]
    mask = _mask_rows(x, axis)
    if mask is not None:
        both = [z.masked_fill(mask, -torch.inf) for z in both]
    first, second = (torch.softmax(z, dim=1) for z in both)
    return torch.nan_to_num(first), torch.nan_to_num(second)


def _mask_rows(x: Signal, axis: int) -> torch.Tensor | None:
    """The mask's rows, evenly thinned or repeated to ROWS."""
    if x.masked is None:
        return None
    whole = x.masked.reshape((1,) * (len(x.shape) - x.masked.ndim) + tuple(x.masked.shape))
    whole = whole.expand(*(whole.shape[:axis]), x.shape[axis], *(whole.shape[axis + 1 :]))
    flat = whole.movedim(axis, -1).reshape(-1, x.shape[axis])
    picks = torch.linspace(0, len(flat) - 1, ROWS).round().long()
    return flat[picks]
