"""Convolutions with their actual weights: W carries means, W squared variances.

Where positions of a large image are alike, one position of a channel stands for all of them: a tap
counts as often as it falls inside the image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.linear import BLOCK, LARGE, NOTES, Linear, scaled
from gradgauge.analytic.moments import ALIKE, Flow, Signal, Step, flow, signal
from gradgauge.ops.window import Window, resolve

Met = Callable[[Tensor, Tensor], float]


def convolution(call: Call) -> Step | None:
    """Conv and ConvTranspose: the op itself on means with W and on variances with W.W."""
    x, W = call.signal(0), call.known(1)
    if x is None or W is None:
        return None
    alike = call.op == "Conv" and call.pools and _is_one_position(x)
    made = _per_channel(call, x, W) if alike else _per_element(call, x, W)
    bias = call.exact(2)
    mean = made.mean
    mean = mean if bias is None else mean + bias.reshape([1, -1, *[1] * (mean.ndim - 2)])
    axes = x.axes[0] + "f" + "p" * (mean.ndim - 2)
    shared = _conv_shared(x, made.shape, made.var, made.spread)
    out = signal(made.shape, axes, mean, made.var, shared=shared)
    # Channels alone: the taps see patches that overlap, and are not so many inputs of their own.
    width = W.shape[1] if call.op == "Conv" else W.shape[0]
    return Step((out,), single(call, _conv_back(call, x, out, made)), NOTES, width=width)


@dataclass(frozen=True, slots=True)
class Made:
    """Mean and variance before the bias, and the maps back.

    `transposed` carries mean squares of gradients back, `met` gives for E x^2 and E g^2 (channels
    averaged) the sum over output positions of their products, averaged over taps.
    """

    shape: tuple[int, ...]
    mean: Tensor
    var: Tensor
    spread: "Spread"
    transposed: Linear
    met: Met


def _is_one_position(x: Signal) -> bool:
    """Whether one position of each channel stands for very many."""
    held = x.mean.numel() <= x.shape[1] and x.var.numel() <= x.shape[1]
    return held and x.positions >= ALIKE


def _per_element(call: Call, x: Signal, W: Tensor) -> Made:
    run, rest = call.run, call.attributes
    large = W.numel() * x.size > LARGE
    dtype = torch.float32 if large else torch.float64
    W = W.to(dtype)
    mean = scaled(x.mean.expand(x.shape), lambda t: run(t, W, **rest), large=large)
    top = max(float(x.var.max()), 1e-300)
    leaf = (x.var.expand(x.shape) / top).to(dtype).detach().requires_grad_()
    squares = W * W
    with torch.enable_grad():
        made = run(leaf, squares, **rest)

    def transposed(g: Tensor) -> Tensor:
        peak = max(float(g.max()), 1e-300)
        wide = (g.expand(made.shape) / peak).to(dtype)
        (found,) = torch.autograd.grad(made, leaf, wide, retain_graph=True)
        return found.to(torch.float64) * peak

    ones = torch.ones((1, 1, *W.shape[2:]), dtype=torch.float64)

    def met(q: Tensor, g: Tensor) -> float:
        with torch.no_grad():
            seen = run(q.expand(1, 1, *x.shape[2:]), ones, **{**rest, "group": 1})
        return float((seen * g).sum()) / ones.numel()

    var = made.detach().to(torch.float64) * top
    return Made(tuple(mean.shape), mean, var, _spread(call, W), transposed, met)


def _per_channel(call: Call, x: Signal, W: Tensor) -> Made:
    """All positions of a channel as one: sums over taps, each by the share of outputs it meets.

    The mean of an output differs where taps fall outside; its scatter over positions, A F A^T with
    A = W m per tap and F the share of outputs that meet two taps, goes to the variance.
    """
    rest = dict(call.attributes)
    groups = int(rest.get("group", 1))
    window = resolve(
        x.shape[2:],
        tuple(W.shape[2:]),
        rest.get("strides"),
        rest.get("dilations"),
        rest.get("pads"),
        rest.get("auto_pad", "NOTSET"),
    )
    shape = (1, W.shape[0], *window.outputs(ceil=False))
    both = _coverage(window, shape[2:])
    share = both.diagonal()
    taps = W.to(torch.float32).reshape(groups, W.shape[0] // groups, W.shape[1], -1)
    if taps.shape[3] == 1:
        met_squares = coherent = taps[..., 0].square() * float(share[0])
    else:
        met_squares = _tap_squares(taps, share.float())
        coherent = taps.sum(3).square()
    average = float(share.mean())
    dense = all(s == 1 for s in window.strides)
    spread = Spread(coherent, met_squares / average, groups, dense, taps.shape[3])
    channels = x.mean.reshape(-1).expand(x.shape[1]).reshape(groups, 1, 1, -1)
    by_tap = scaled(channels, lambda m: m @ taps, large=True)[..., 0, :]
    mean, square = by_tap @ share, ((by_tap @ both) * by_tap).sum(-1)
    line = [1, -1, *[1] * len(window.kernel)]
    lone = Spread(met_squares, met_squares, groups, dense, 1)
    var = lone.forward(x.var, coherent=False)
    var = var + (square - mean * mean).clamp_min(0.0).reshape(line)
    ratio = math.prod(shape[2:]) / x.positions

    def transposed(g: Tensor) -> Tensor:
        return lone.backward(_channels(g), coherent=False) * ratio

    def met(q: Tensor, g: Tensor) -> float:
        return average * float(q.mean()) * float(g.mean()) * math.prod(shape[2:])

    return Made(shape, mean.reshape(line), var, spread, transposed, met)


def _tap_squares(taps: Tensor, share: Tensor) -> Tensor:
    """Sum over taps of W^2 by their shares, a block at a time: no second W is held."""
    flat = taps.reshape(-1, taps.shape[-1])
    blocks = [b.square() @ share for b in torch.split(flat, max(BLOCK // taps.shape[-1], 1))]
    return torch.cat(blocks).reshape(taps.shape[:-1])


def _coverage(window: Window, outputs: tuple[int, ...]) -> Tensor:
    """Share of output positions at which both of two taps fall inside the image: [taps, taps]."""
    held = torch.ones((1, 1), dtype=torch.float64)
    rows = zip(
        window.sizes,
        window.kernel,
        window.strides,
        window.dilations,
        window.before,
        outputs,
        strict=True,
    )
    for size, kernel, stride, dilation, before, count in rows:
        at = torch.arange(count)[:, None] * stride + torch.arange(kernel) * dilation - before
        inside = ((at >= 0) & (at < size)).to(torch.float64)
        held = torch.kron(held, inside.T @ inside / count)
    return held


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

    @property
    def lags(self) -> bool:
        """Whether two positions see the same inputs through different taps."""
        return self.dense and self.taps > 1

    def forward(self, x: Tensor, *, coherent: bool) -> Tensor:
        """Per channel [1, C, 1...] through the squared sums, or through the sums of squares."""
        return self._apply(x, self.sums if coherent else self.squares)

    def backward(self, g: Tensor, *, coherent: bool) -> Tensor:
        """The transpose."""
        held = self.sums if coherent else self.squares
        return self._apply(g, held.transpose(1, 2))

    def _apply(self, x: Tensor, held: Tensor) -> Tensor:
        per = x.reshape(-1).expand(held.shape[0] * held.shape[2]).reshape(held.shape[0], -1, 1)
        single_precision = held.dtype == torch.float32
        made = scaled(per, lambda t: held @ t, large=single_precision)
        return made.reshape(1, -1, *[1] * (x.ndim - 2))


def _spread(call: Call, W: Tensor) -> Spread:
    groups = int(call.attributes.get("group", 1))
    taps = W.flatten(2)
    squares = taps.square().sum(2)
    sums = squares if taps.shape[2] == 1 else taps.sum(2).square()
    if call.op == "Conv":
        split = [t.reshape(groups, t.shape[0] // groups, -1) for t in (sums, squares)]
    else:
        split = [t.reshape(groups, t.shape[0] // groups, -1).mT for t in (sums, squares)]
    dense = all(s == 1 for s in call.attributes.get("strides") or [1])
    return Spread(split[0], split[1], groups, dense, taps.shape[2])


def _conv_shared(x: Signal, shape: tuple[int, ...], var: Tensor, spread: Spread) -> Tensor:
    """Covariance of two positions: what they share, and taps that read the same inputs."""
    places = list(range(2, len(x.shape)))
    positions = math.prod(shape[2:])
    shared = _channels(x.shared)
    found = torch.zeros([1] * var.ndim, dtype=torch.float64)
    if shared.any():
        found = spread.forward(shared, coherent=True)
    if spread.lags and positions > 1:
        own = _channels((x.var - x.shared).mean(places, keepdim=True))
        lag = spread.forward(own, coherent=True) - spread.forward(own, coherent=False)
        found = found + lag / (positions - 1)
    top = var.mean(places, keepdim=True)
    return torch.maximum(torch.minimum(found, top), -top / max(positions - 1, 1))


def _channels(t: Tensor) -> Tensor:
    return t.mean(list(range(2, t.ndim)), keepdim=True)


def _conv_back(
    call: Call, x: Signal, out: Signal, made: Made
) -> Callable[[Flow], list[Flow | None]]:
    places, spread = list(range(2, len(x.shape))), made.spread
    kept = min(out.positions / max(x.positions, 1), 1.0)

    def back(held: Flow) -> list[Flow | None]:
        g = made.transposed(held.g)
        common = _channels(held.shared)
        shared = torch.zeros([1] * g.ndim, dtype=torch.float64)
        if common.any():
            # What the taps add beyond the sum of squares; a stride lets each phase meet its own.
            coherent = spread.backward(common, coherent=True)
            if spread.lags:
                extra = coherent - spread.backward(common, coherent=False)
                g = (g + extra * kept).clamp_min(0.0)
            shared = coherent * kept
        if spread.lags and x.positions > 1:
            own = _channels((held.g - held.shared).mean(places, keepdim=True))
            lag = spread.backward(own, coherent=True) - spread.backward(own, coherent=False)
            shared = shared + lag / (x.positions - 1)
        top = g.mean(places, keepdim=True)
        shared = torch.maximum(torch.minimum(shared, top), -top / max(x.positions - 1, 1))
        bias = out.positions * (held.g + (out.positions - 1) * held.shared).mean()
        return [
            Flow(g, shared),
            _to_kernel(call, x, out, held, made.met),
            flow(bias.clamp_min(0.0)),
        ]

    return back


def _to_kernel(call: Call, x: Signal, out: Signal, held: Flow, met: Met) -> Flow:
    """Mean over the kernel of E (sum over positions of g x)^2, channels averaged beforehand."""
    q = x.second.expand(1, x.shape[1], *x.second.shape[2:]).mean(1, keepdim=True)
    g = held.g.expand(1, out.shape[1], *held.g.shape[2:]).mean(1, keepdim=True)
    uses = out.positions if call.op == "Conv" else x.positions
    pairs = uses * (uses - 1) * float(held.shared.mean()) * float(x.pair().mean())
    return flow(max(met(q, g) + pairs, 0.0))
