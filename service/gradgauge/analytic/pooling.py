"""Averages over windows, positions or features; maxima are probed."""

import math

import torch

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Moments, Pulled, Signal, Step


def average_pool(call: Call) -> Step | None:
    """AveragePool: means of k neighbours, which share the overlap of positions."""
    x = call.signal(0)
    if x is None:
        return None
    k = math.prod(call.attributes["kernel_shape"])
    shape = _shape_after(call, x)
    out = Signal(shape, x.axes, _averaged(x.moments, k, x.moments.t, x.moments.r), x.batch)
    return Step((out,), single(call, lambda flow: [_window_back(x, out, k, flow)]))


def global_average_pool(call: Call) -> Step | None:
    """GlobalAveragePool: the mean over all positions of a channel."""
    x = call.signal(0)
    if x is None:
        return None
    k = math.prod(x.shape[2:])
    shape = (*x.shape[:2], *(1 for _ in x.shape[2:]))
    out = Signal(shape, x.axes, _averaged(x.moments, k, x.moments.t, x.moments.r), x.batch)
    return Step((out,), single(call, lambda flow: [_window_back(x, out, k, flow)]))


def reduce_mean(call: Call) -> Step | None:
    """ReduceMean over any axes but the batch's."""
    return _reduce(call, mean=True)


def reduce_sum(call: Call) -> Step | None:
    """ReduceSum over any axes but the batch's."""
    return _reduce(call, mean=False)


def _reduce(call: Call, *, mean: bool) -> Step | None:
    x = call.signal(0)
    dims = None if x is None else _reduced_axes(call, x)
    if x is None or not dims or any(x.axes[d] in "bn" for d in dims):
        return None
    n = math.prod(x.shape[d] for d in dims)
    shared, across = _shared(x, dims)
    whole = 1.0 if mean else float(n)
    small = _averaged(x.moments, n, shared, across)
    moments = Moments(small.m * whole, small.q * whole**2, small.p * whole**2, small.t * whole**2)
    kept = tuple(1 if i in dims else size for i, size in enumerate(x.shape))
    out = Signal(kept, x.axes, moments, x.batch)
    if not call.attributes.get("keepdims", 1):
        shape = tuple(size for i, size in enumerate(x.shape) if i not in dims)
        axes = "".join(role for i, role in enumerate(x.axes) if i not in dims)
        out = Signal(shape, axes, moments, x.batch)
    scale = whole**2 / n**2
    over_positions = any(x.axes[d] == "p" for d in dims)
    pairs = 1.0 / out.positions if over_positions else 0.0

    def back(flow: Pulled) -> list[Pulled | None]:
        common = pairs * flow.g + (1 - pairs) * flow.c
        weights = None
        if flow.weights is not None:
            weights = flow.weights.reshape(kept).expand(x.shape)
        given = [Pulled(flow.g * scale, common * scale, weights), None]
        return given[: len(call.inputs)]

    return Step((out,), single(call, back))


def _reduced_axes(call: Call, x: Signal) -> list[int]:
    held = call.known(1)
    given = call.attributes.get("axes") if held is None else held.tolist()
    if given is None:
        return [] if call.attributes.get("noop_with_empty_axes") else list(range(len(x.shape)))
    return sorted(int(a) % len(x.shape) for a in given)


def _shared(x: Signal, dims: list[int]) -> tuple[float, float]:
    """Mean overlap of two different elements reduced together: of one input, and of two."""
    channels = math.prod(x.shape[d] for d in dims if x.axes[d] == "f")
    places = math.prod(x.shape[d] for d in dims if x.axes[d] == "p")
    m2 = x.moments.m**2
    if channels * places == 1:
        return m2, m2
    same = (places - 1) / (channels * places - 1)
    return same * x.moments.t + (1 - same) * m2, same * x.moments.r + (1 - same) * m2


def _averaged(x: Moments, n: int, shared: float, across: float) -> Moments:
    """Mean of n elements of overlap `shared`; of two inputs' means, elements overlap `across`."""
    q = shared + (x.q - shared) / n
    p = across + (x.p - across) / n
    t = shared + (x.t - shared) / n if shared < x.t else x.t
    return Moments(x.m, q, min(p, q), min(t, q))


def _window_back(x: Signal, out: Signal, k: int, flow: Pulled) -> Pulled:
    """Each output gives 1/k of its gradient to k inputs; `cover` windows meet at an input."""
    cover = out.size * k / x.size
    apart = (flow.g - flow.c) * out.size / (x.size * k)
    coherent = (cover / k) ** 2
    pairs = 1.0 / out.positions
    common = (pairs * flow.g + (1 - pairs) * flow.c) * coherent
    return Pulled(apart + flow.c * coherent, common)


def _shape_after(call: Call, x: Signal) -> tuple[int, ...]:
    made = call.run(torch.zeros((1, *x.shape[1:])), **call.attributes)
    return (x.shape[0], *made.shape[1:])
