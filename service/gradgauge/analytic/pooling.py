"""Averages over windows, positions or features; maxima are probed."""

import math

import torch
from torch import Tensor

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Flow, Signal, Step, signal


def average_pool(call: Call) -> Step | None:
    """AveragePool: means of k neighbours, which share the covariance of positions."""
    x = call.signal(0)
    if x is None:
        return None
    k = math.prod(call.attributes["kernel_shape"])

    def run(t: Tensor) -> Tensor:
        made = call.run(t, **call.attributes)
        if not isinstance(made, Tensor):
            raise TypeError("AveragePool gives one tensor")
        return made

    mean = run(x.mean.expand(x.shape))
    own = (x.var - x.shared).clamp_min(0.0).expand(x.shape)
    # A weight of 1/k squared is 1/k of the weight.
    var = run(own) / k + x.shared
    out = signal(tuple(mean.shape), x.axes, mean, var, shared=x.shared)

    def turned(t: Tensor) -> Tensor:
        leaf = torch.zeros(x.shape, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            made = run(leaf)
        return torch.autograd.grad(made, leaf, t.expand(out.shape))[0]

    def back(held: Flow) -> list[Flow | None]:
        cover = turned(torch.ones(out.shape, dtype=torch.float64)).square()
        common = held.shared * cover
        own_g = turned(held.g - held.shared) / k
        pairs = held.shared + (held.g - held.shared).mean(x.places(), keepdim=True) / out.positions
        shared = pairs * cover.mean(x.places(), keepdim=True)
        return [Flow(own_g + common, shared)]

    return Step((out,), single(call, back))


def global_average_pool(call: Call) -> Step | None:
    """GlobalAveragePool: the mean over all positions of a channel."""
    x = call.signal(0)
    return None if x is None else _averaged(call, x, list(range(2, len(x.shape))), 1.0)


def reduce_mean(call: Call) -> Step | None:
    """ReduceMean over any axes but the batch's."""
    return _reduce(call, mean=True)


def reduce_sum(call: Call) -> Step | None:
    """ReduceSum over any axes but the batch's."""
    return _reduce(call, mean=False)


def _reduce(call: Call, *, mean: bool) -> Step | None:
    x = call.signal(0)
    dims = None if x is None else _reduced_axes(call, x)
    if x is None or not dims or any(x.axes[d] == "b" for d in dims):
        return None
    n = math.prod(x.shape[d] for d in dims)
    return _averaged(call, x, dims, 1.0 if mean else float(n))


def _averaged(call: Call, x: Signal, dims: list[int], scale: float) -> Step:
    """`scale` times the mean over `dims`."""
    n = math.prod(x.shape[d] for d in dims)
    places = [d for d in dims if x.axes[d] == "p"]
    channels = n // math.prod(x.shape[d] for d in places)
    mean = x.mean.mean(dims, keepdim=True) * scale
    var = _variance_of_mean(x, dims, places, channels) * scale**2
    left = [d for d in x.places() if d not in dims]
    shared = x.shared.mean(dims, keepdim=True) * scale**2 / channels
    out = signal(
        [1 if i in dims else size for i, size in enumerate(x.shape)],
        x.axes,
        mean,
        var,
        shared=shared if left else torch.zeros_like(shared),
    )
    kept = bool(call.attributes.get("keepdims", 1)) or call.op == "GlobalAveragePool"
    final = out if kept else _dropped(out, dims)

    def back(held: Flow) -> list[Flow | None]:
        g, s = (t if kept else _restored(t, dims) for t in (held.g, held.shared))
        factor = scale**2 / n**2
        positions = math.prod(x.shape[d] for d in places)
        rest = max(x.positions // max(positions, 1), 1)
        # Of two positions, this share were averaged together.
        alike = (positions - 1) / (x.positions - 1) if x.positions > 1 and places else 0.0
        common = alike * g.mean(left, keepdim=True) if left else alike * g
        common = common + (1 - alike) * s if rest > 1 else common
        return [Flow(g * factor, common * factor)]

    return Step((final,), single(call, back))


def _variance_of_mean(x: Signal, dims: list[int], places: list[int], channels: int) -> Tensor:
    if x.cov is not None and len(dims) == len([d for d in dims if x.axes[d] == "f"]):
        return (x.cov.sum() / channels**2).reshape([1] * len(x.shape))
    positions = math.prod(x.shape[d] for d in places)
    own = (x.var - x.shared).mean(dims, keepdim=True) / positions
    common = x.shared.mean(dims, keepdim=True)
    return (own + common).clamp_min(0.0) / channels


def _dropped(out: Signal, dims: list[int]) -> Signal:
    keep = [i for i in range(len(out.shape)) if i not in dims]
    mean, var, shared = (_squeezed(t, dims) for t in (out.mean, out.var, out.shared))
    return signal(
        [out.shape[i] for i in keep],
        "".join(out.axes[i] for i in keep),
        mean,
        var,
        shared=shared,
    )


def _squeezed(t: Tensor, dims: list[int]) -> Tensor:
    return t.reshape([n for i, n in enumerate(t.shape) if i not in dims])


def _restored(t: Tensor, dims: list[int]) -> Tensor:
    for d in dims:
        t = t.unsqueeze(d)
    return t


def _reduced_axes(call: Call, x: Signal) -> list[int]:
    held = call.known(1)
    given = call.attributes.get("axes") if held is None else held.tolist()
    if given is None:
        return [] if call.attributes.get("noop_with_empty_axes") else list(range(len(x.shape)))
    return sorted(int(a) % len(x.shape) for a in given)
