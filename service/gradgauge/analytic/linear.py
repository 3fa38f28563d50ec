"""Dense and convolutional layers with their actual weights: W carries means, W squared variances.

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

    def apply_squares(self, x: Tensor, axis: int) -> Tensor:
        """(W.W) x along `axis`."""
        W = self.read()
        return along(x, W * W if W.dtype == torch.float64 else W.float().square(), axis)

    def apply_squares_back(self, x: Tensor, axis: int) -> Tensor:
        """(W.W)^T x along `axis`."""
        W = self.read()
        return along(x, (W * W if W.dtype == torch.float64 else W.float().square()).T, axis)

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
        var = W.apply_squares(x.var, axis)
        shared = W.apply_squares(x.shared, axis) if x.shared.any() else None
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
    own = W.apply_squares(x.var - x.shared, axis)
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
    g = W.apply_squares_back(_wide(held.g, out, axis), axis)
    shared = torch.zeros([1] * g.ndim, dtype=torch.float64)
    if held.shared.any():
        shared = W.apply_squares_back(_wide(held.shared, out, axis), axis)
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
    own = W.apply_squares_back((held.g - held.shared).expand(size), axis)
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


def convolution(call: Call) -> Step | None:
    """Conv and ConvTranspose: the op itself on means with W and on variances with W.W."""
    x, W = call.signal(0), call.known(1)
    if x is None or W is None:
        return None
    run, rest = call.run, call.attributes
    large = W.numel() * x.size > LARGE
    dtype = torch.float32 if large else torch.float64
    W = W.to(dtype)
    bias = call.exact(2)
    mean = scaled(x.mean.expand(x.shape), lambda t: run(t, W, **rest), large=large)
    mean = mean if bias is None else mean + bias.reshape([1, -1, *[1] * (mean.ndim - 2)])
    top = max(float(x.var.max()), 1e-300)
    leaf = (x.var.expand(x.shape) / top).to(dtype).detach().requires_grad_()
    squares = W * W
    with torch.enable_grad():
        made = run(leaf, squares, **rest)
    var = made.detach().to(torch.float64) * top
    spread = _spread(call, W)
    axes = x.axes[0] + "f" + "p" * (mean.ndim - 2)
    shared = _conv_shared(x, var, spread)
    out = signal(tuple(mean.shape), axes, mean, var, shared=shared)

    def transposed(g: Tensor) -> Tensor:
        peak = max(float(g.max()), 1e-300)
        wide = (g.expand(out.shape) / peak).to(dtype)
        (found,) = torch.autograd.grad(made, leaf, wide, retain_graph=True)
        return found.to(torch.float64) * peak

    # Channels alone: the taps see patches that overlap, and are not so many inputs of their own.
    width = W.shape[1] if call.op == "Conv" else W.shape[0]
    back = _conv_back(call, x, out, transposed, spread)
    return Step((out,), single(call, back), NOTES, width=width)


@dataclass(frozen=True, slots=True)
class Spread:
    """Sums over taps of a kernel, squared, and of its squares: [out, in] for one group.

    `dense` is whether every position meets every tap (stride 1), `taps` their number.
    """

    sums: Tensor
    squares: Tensor
    groups: int
    dense: bool
    taps: int

    def forward(self, x: Tensor, *, coherent: bool) -> Tensor:
        """Per channel [1, C, 1...] through the squared sums, or through the sums of squares."""
        return self._apply(x, self.sums if coherent else self.squares)

    def backward(self, g: Tensor, *, coherent: bool) -> Tensor:
        """The transpose."""
        held = self.sums if coherent else self.squares
        return self._apply(g, held.transpose(1, 2))

    def _apply(self, x: Tensor, held: Tensor) -> Tensor:
        per = x.reshape(-1).expand(held.shape[0] * held.shape[2]).reshape(held.shape[0], -1, 1)
        made = held @ per
        return made.reshape(1, -1, *[1] * (x.ndim - 2))


def _spread(call: Call, W: Tensor) -> Spread:
    groups = int(call.attributes.get("group", 1))
    taps = W.flatten(2)
    sums = taps.sum(2).to(torch.float64).square()
    squares = taps.square().sum(2).to(torch.float64)
    if call.op == "Conv":
        split = [t.reshape(groups, t.shape[0] // groups, -1) for t in (sums, squares)]
    else:
        split = [t.reshape(groups, t.shape[0] // groups, -1).mT for t in (sums, squares)]
    dense = all(s == 1 for s in call.attributes.get("strides") or [1])
    return Spread(split[0], split[1], groups, dense, taps.shape[2])


def _conv_shared(x: Signal, var: Tensor, spread: Spread) -> Tensor:
    """Covariance of two positions: what they share, and taps that read the same inputs."""
    places = list(range(2, len(x.shape)))
    positions = math.prod(var.shape[2:])
    shared = _channels(x.shared)
    found = torch.zeros([1] * var.ndim, dtype=torch.float64)
    if shared.any():
        found = spread.forward(shared, coherent=True)
    if spread.dense and positions > 1:
        own = _channels((x.var - x.shared).mean(places, keepdim=True))
        lag = spread.forward(own, coherent=True) - spread.forward(own, coherent=False)
        found = found + lag / (positions - 1)
    top = var.mean(places, keepdim=True)
    return torch.maximum(torch.minimum(found, top), -top / max(positions - 1, 1))


def _channels(t: Tensor) -> Tensor:
    return t.mean(list(range(2, t.ndim)), keepdim=True)


def _conv_back(
    call: Call, x: Signal, out: Signal, transposed: Linear, spread: Spread
) -> Callable[[Flow], list[Flow | None]]:
    places = list(range(2, len(x.shape)))
    kept = min(out.positions / max(x.positions, 1), 1.0)

    def back(held: Flow) -> list[Flow | None]:
        g = transposed(held.g)
        common = _channels(held.shared)
        shared = torch.zeros([1] * g.ndim, dtype=torch.float64)
        if common.any():
            # What the taps add beyond the sum of squares; a stride lets each phase meet its own.
            coherent = spread.backward(common, coherent=True)
            extra = coherent - spread.backward(common, coherent=False)
            g = (g + extra * kept if spread.dense else g).clamp_min(0.0)
            shared = coherent * kept
        if spread.dense and x.positions > 1:
            own = _channels((held.g - held.shared).mean(places, keepdim=True))
            lag = spread.backward(own, coherent=True) - spread.backward(own, coherent=False)
            shared = shared + lag / (x.positions - 1)
        top = g.mean(places, keepdim=True)
        shared = torch.maximum(torch.minimum(shared, top), -top / max(x.positions - 1, 1))
        bias = out.positions * (held.g + (out.positions - 1) * held.shared).mean()
        return [Flow(g, shared), _to_kernel(call, x, out, held, spread), flow(bias.clamp_min(0.0))]

    return back


def _to_kernel(call: Call, x: Signal, out: Signal, held: Flow, spread: Spread) -> Flow:
    """Mean over the kernel of E (sum over positions of g x)^2, channels averaged beforehand."""
    ones = torch.ones((1, 1, *_kernel(call)), dtype=torch.float64)
    rest = {**call.attributes, "group": 1}
    q = x.second.expand(x.shape).mean(1, keepdim=True)
    g = held.g.expand(out.shape).mean(1, keepdim=True)
    with torch.no_grad():
        met = call.run(q, ones, **rest)
    total = float((met * g).sum()) / spread.taps
    uses = out.positions if call.op == "Conv" else x.positions
    pairs = uses * (uses - 1) * float(held.shared.mean()) * float(x.pair().mean())
    return flow(max(total + pairs, 0.0))


def _kernel(call: Call) -> tuple[int, ...]:
    W = call.known(1)
    return () if W is None else tuple(W.shape[2:])
