"""Dense layers with their actual weights: W carries means, W squared variances.

Where a vector is small enough its whole covariance goes through W Sigma W^T, and its gradient's
through W^T G W (THEORY section 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradgauge.analytic.binary import reduced
from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import (
    WIDE,
    Flow,
    Signal,
    Step,
    covariance_of,
    flow,
    signal,
)

NOTES = ("weights_independent_of_activations",)
BLOCK = 1 << 18  # elements of a matrix that are squared at a time
LARGE = 1 << 15  # elements from which products are taken in float32
Linear = Callable[[Tensor], Tensor]


def matmul(call: Call) -> Step | None:
    """MatMul with a constant matrix on either side; None for other operands."""
    if len(call.signals) != 1:
        return None
    place = call.signals[0]
    x, W = call.signal(place), call.known(1 - place)
    if W is None or W.ndim != 2 or x is None or len(x.shape) < 2:
        return None

    def weights() -> Tensor:
        held = call.known(1 - place)
        if held is None:
            raise TypeError("the weight of a MatMul is gone")
        return held if place == 1 else held.T

    shape = tuple(W.shape) if place == 1 else (W.shape[1], W.shape[0])
    return _dense(call, x, Weights(weights, shape), place=place, bias=None)


def gemm(call: Call) -> Step | None:
    """Gemm whose left operand is the activation: alpha A W + beta C."""
    x, W = call.signal(0), call.known(1)
    if x is None or W is None or call.attributes.get("transA"):
        return None
    alpha = float(call.attributes.get("alpha", 1.0))
    turned = bool(call.attributes.get("transB"))

    def weights() -> Tensor:
        held = call.known(1)
        if held is None:
            raise TypeError("the weight of a Gemm is gone")
        held = held if turned else held.T
        return held if alpha == 1.0 else held * alpha

    C = call.exact(2)
    bias = None if C is None else C * float(call.attributes.get("beta", 1.0))
    return _dense(call, x, Weights(weights, tuple(weights().shape)), place=0, bias=bias)


@dataclass(frozen=True, slots=True)
class Weights:
    """A matrix [out, in], read when it is needed."""

    read: Callable[[], Tensor]
    shape: tuple[int, ...]

    def apply(self, x: Tensor, axis: int) -> Tensor:
        """W x along `axis`."""
        return along(x, self.read(), axis)

    def apply_squares(self, axis: int, *given: Tensor) -> list[Tensor]:
        """(W.W) x along `axis` for each x."""
        W = self.read()
        return [_squared(x, W, axis, back=False) for x in given]

    def apply_squares_back(self, axis: int, *given: Tensor) -> list[Tensor]:
        """(W.W)^T x along `axis` for each x."""
        W = self.read()
        return [_squared(x, W, axis, back=True) for x in given]

    def sums(self) -> Tensor:
        """Sum over inputs, per output."""
        return self.read().to(torch.float64).sum(1)

    def column_sums(self) -> Tensor:
        """Sum over outputs, per input."""
        return self.read().to(torch.float64).sum(0)


def along(x: Tensor, W: Tensor, axis: int) -> Tensor:
    """W x along one axis of x, which may be of size 1 for one value repeated."""
    moved = x.movedim(axis, -1)
    if moved.shape[-1] == 1 and W.shape[1] > 1:
        made = moved * W.to(torch.float64).sum(1)
    else:
        made = scaled(moved, lambda t: t @ W.T.to(t.dtype), large=W.numel() > LARGE)
    return made.movedim(-1, axis)


def _squared(x: Tensor, W: Tensor, axis: int, *, back: bool) -> Tensor:
    """`along` with (W.W), or its transpose, squared a block at a time: no second W is held."""
    if W.numel() <= BLOCK:
        squares = W * W if W.dtype == torch.float64 else W.float().square()
        return along(x, squares.T if back else squares, axis)
    # Blocks of what lies together in memory.
    turned = W.stride(0) < W.stride(1)
    whole = W.T if turned else W
    rows = max(BLOCK // whole.shape[1], 1)
    spread, gather = x.movedim(axis, -1), back != turned
    size = whole.shape[0 if gather else 1]
    spread = spread.expand(*spread.shape[:-1], size)

    def run(t: Tensor) -> Tensor:
        total = torch.zeros((*t.shape[:-1], whole.shape[1 if gather else 0]), dtype=t.dtype)
        for first in range(0, whole.shape[0], rows):
            part = whole[first : first + rows].to(t.dtype).square()
            if gather:
                total += t[..., first : first + rows] @ part
            else:
                total[..., first : first + rows] = t @ part.T
        return total

    return scaled(spread, run, large=True).movedim(-1, axis)


def scaled(x: Tensor, run: Linear, *, large: bool) -> Tensor:
    """`run`, linear, of x; in float32 with x brought to order 1 where it is large."""
    if not large:
        return run(x)
    top = float(x.abs().max())
    if top == 0 or not math.isfinite(top):
        return run(x.float()).to(torch.float64)
    return run((x / top).float()).to(torch.float64) * top


def _dense(call: Call, x: Signal, W: Weights, *, place: int, bias: Tensor | None) -> Step:
    """W x along the last axis of x (the last but one for a matrix from the left)."""
    axis = len(x.shape) - 1 - place
    shape = list(x.shape)
    shape[axis] = W.shape[0]
    mean = W.apply(x.mean, axis)
    mean = mean if bias is None else mean + bias
    mixing = x.axes[axis] in "pk" and x.shape[axis] > 1
    cov, shared = None, None
    if mixing:
        var, shared = _mixed(x, W, axis)
    elif _is_vector(x, W.shape):
        held = torch.diag(x.var.reshape(-1).expand(W.shape[1])) if x.cov is None else x.cov
        V = W.read().to(torch.float64)
        cov = V @ held @ V.T
        var, shared = cov.diagonal().clamp_min(0.0).reshape(mean.shape), None
    else:
        var, *rest = W.apply_squares(axis, x.var, *([x.shared] if x.shared.any() else []))
        shared = rest[0] if rest else None
    out = signal(shape, x.axes, mean, var, shared=shared, cov=cov)
    back = _dense_back(call, x, out, W, place)
    return Step((out,), single(call, back), NOTES, width=W.shape[1])


def _is_vector(x: Signal, shape: tuple[int, ...]) -> bool:
    """Whether all of the value is one row of features, few enough for their covariance."""
    return x.shape[-1] == x.size and max(shape) <= WIDE and min(shape) > 1


def _mixed(x: Signal, W: Weights, axis: int) -> tuple[Tensor, Tensor]:
    """A sum over positions: what they share adds up, the rest by squares."""
    sums = W.sums()
    line = [1] * len(x.shape)
    line[axis] = len(sums)
    (own,) = W.apply_squares(axis, x.var - x.shared)
    var = own + x.shared * (sums * sums).reshape(line)
    return var, x.shared * float((sums * sums).mean())


def _dense_back(
    call: Call, x: Signal, out: Signal, W: Weights, place: int
) -> Callable[[Flow], list[Flow | None]]:
    axis = len(x.shape) - 1 - place
    mixing = x.axes[axis] in "pk" and x.shape[axis] > 1

    def back(held: Flow) -> list[Flow | None]:
        to_x = _mixed_back(held, W, axis) if mixing else _plain_back(held, x, out, W, axis)
        to_w = _to_weight(held, x, out, axis)
        gradients: list[Flow | None] = [to_x, to_w] if place == 0 else [to_w, to_x]
        if len(call.inputs) > 2:
            bias = call.known(2)
            gradients.append(None if bias is None else reduced(out, tuple(bias.shape), held))
        return gradients

    return back


def _plain_back(held: Flow, x: Signal, out: Signal, W: Weights, axis: int) -> Flow:
    if _is_vector(x, W.shape):
        V = W.read().to(torch.float64)
        cov = V.T @ covariance_of(held, W.shape[0]) @ V
        g = cov.diagonal().clamp_min(0.0).reshape([*x.shape[:-1], -1])
        return Flow(g, torch.zeros_like(g[..., :1]), cov=cov)
    moving = [held.g, held.shared] if held.shared.any() else [held.g]
    g, *rest = W.apply_squares_back(axis, *(_wide(t, out, axis) for t in moving))
    shared = rest[0] if rest else torch.zeros([1] * g.ndim, dtype=torch.float64)
    return Flow(g, shared)


def _wide(t: Tensor, out: Signal, axis: int) -> Tensor:
    """The tensor at full size along `axis`, as the product needs it."""
    size = [-1] * t.ndim
    size[axis] = out.shape[axis]
    return t.expand(size)


def _mixed_back(held: Flow, W: Weights, axis: int) -> Flow:
    sums = W.column_sums()
    size = [-1] * held.g.ndim
    size[axis] = W.shape[0]
    (own,) = W.apply_squares_back(axis, (held.g - held.shared).expand(size))
    line = [1] * held.g.ndim
    line[axis] = len(sums)
    common = held.shared * (sums * sums).reshape(line)
    return Flow(own + common, held.shared * float((sums * sums).mean()))


def _to_weight(held: Flow, x: Signal, out: Signal, axis: int) -> Flow:
    """Mean over W of E (sum over rows of g_i x_j)^2; rows are the positions."""
    rows = x.size // x.shape[axis]
    g = held.g.mean(axis, keepdim=True)
    q = x.second.mean(axis, keepdim=True)
    total = rows * float((g * q).mean())
    if out.axes[axis] == "f" and rows > 1:
        total += rows * (rows - 1) * float(held.shared.mean()) * float(x.pair().mean())
    return flow(max(total, 0.0))
