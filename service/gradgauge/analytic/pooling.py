"""Averages over windows, positions or features; maxima are probed, of a large image in a part."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import ALIKE, Flow, Signal, Step, signal
from gradgauge.analytic.probe import probe

PART = 32  # positions along one axis that are drawn of a large image


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


def max_pool(call: Call) -> Step | None:
    """MaxPool of an image of alike positions, probed on a part of it; None for others."""
    x = call.signal(0)
    if x is None or not call.pools or x.mean.numel() > x.shape[1] or x.var.numel() > x.shape[1]:
        return None
    shape = [*x.shape[:2], *(min(n, PART) for n in x.shape[2:])]
    if x.positions < ALIKE or len(shape) < 4 or math.prod(shape) == x.size:
        return None
    base = call.bases.get(call.names[0])
    bases = {} if base is None else {call.names[0]: replace(base, signal=_part(base.signal, shape))}
    part = probe(replace(call, inputs=(_part(x, shape), *call.inputs[1:]), bases=bases))
    some = part.outputs[0]
    if not isinstance(some, Signal):
        return None
    sizes = call.run(torch.zeros((1, 1, *x.shape[2:])), **call.attributes)
    full = (sizes[0] if isinstance(sizes, tuple | list) else sizes).shape[2:]
    mean, var = (_over_places(t, some) for t in (some.mean, some.var))
    met, seen = math.prod(full), math.prod(shape[2:])
    # What all positions share stays; what neighbours share is of fewer pairs in the whole image.
    lasting = torch.minimum(x.shared * var / x.var.clamp_min(1e-300), some.shared)
    fewer = (some.positions - 1) / max(met - 1, 1)
    shared = lasting + (some.shared - lasting) * fewer
    out = signal([*x.shape[:2], *full], x.axes, mean, var, shared=shared)

    def back(held: Flow) -> list[Flow | None]:
        lone = replace(held, g=_over_places(held.g, out), lean=None)
        (found,) = part.pull([lone, *[None] * (len(part.outputs) - 1)])[:1]
        if found is None:
            return [None]
        lasting = held.shared * (met / x.positions) ** 2
        near = (found.shared - lasting) * ((seen - 1) / (x.positions - 1))
        return [Flow(_over_places(found.g, x), lasting + near, lean=found.lean)]

    return Step((out,), single(call, back), part.assumptions, probed=True)


def _part(x: Signal, shape: list[int]) -> Signal:
    return replace(x, shape=tuple(shape))


def _over_places(t: Tensor, x: Signal) -> Tensor:
    return t.mean(x.places(), keepdim=True)


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
