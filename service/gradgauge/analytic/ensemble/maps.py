"""Mean-field rules over feature maps: convolutions and pooling.

A convolution is a sum over channels and taps; `coverage` is the share of outputs at which a tap
lies inside the map. Two positions keep one overlap whatever their distance: the uniform mode of
Xiao et al. 2018, which is the one that outlives depth.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gradgauge.analytic.ensemble.dense import NONZERO_MEAN, Sum, summed
from gradgauge.analytic.ensemble.functions import ROOT_2PI
from gradgauge.analytic.ensemble.state import (
    State,
    Step,
    Transfer,
    Weight,
    pairs,
    positions,
    scale,
)
from gradgauge.analytic.ensemble.weights import Laws
from gradgauge.graph.init import fans
from gradgauge.schema.shape_maps import conv_pads, transpose_pads
from gradgauge.schema.shape_state import Shape
from gradgauge.schema.spec_fields import spread
from gradgauge.schema.spec_maps import Conv, ConvTranspose, DepthwiseConv, GlobalPool, Pool


def conv(layer: Conv, x: State, shape: Shape, laws: Laws) -> Step:
    """Channels in groups, a kernel, stride, padding, dilation."""
    begin, _ = conv_pads(x.shape[1:], layer.kernel, layer.stride, layer.padding, layer.dilation)
    weight = (layer.filters, x.shape[0] // layer.groups, *layer.kernel)
    share = coverage(x.shape[1:], shape[1:], layer.kernel, layer.stride, layer.dilation, begin)
    uses = layer.filters // layer.groups
    return _convolved(layer, x, shape, laws, weight, share, weight[1], uses)


def depthwise(layer: DepthwiseConv, x: State, shape: Shape, laws: Laws) -> Step:
    """Every channel by itself."""
    axes = len(shape) - 1
    kernel, stride = spread(layer.kernel, axes), spread(layer.stride, axes)
    dilation = spread(layer.dilation, axes)
    begin, _ = conv_pads(x.shape[1:], kernel, stride, layer.padding, dilation)
    share = coverage(x.shape[1:], shape[1:], kernel, stride, dilation, begin)
    return _convolved(layer, x, shape, laws, (shape[0], 1, *kernel), share, 1, layer.multiplier)


def conv_transpose(layer: ConvTranspose, x: State, shape: Shape, laws: Laws) -> Step:
    """The transpose of a convolution from `shape` to the input's."""
    axes = len(shape) - 1
    kernel, stride = spread(layer.kernel, axes), spread(layer.stride, axes)
    dilation = spread(layer.dilation, axes)
    begin, _, _ = transpose_pads(kernel, stride, layer.padding, dilation)
    share = coverage(shape[1:], x.shape[1:], kernel, stride, dilation, begin)
    terms, uses = x.shape[0] // layer.groups, layer.filters // layer.groups
    weight = (x.shape[0], uses, *kernel)
    spacing = positions(x.shape, channel_first=True) / positions(shape, channel_first=True)
    return _convolved(layer, x, shape, laws, weight, share * spacing, terms, uses)


def _convolved(
    layer: Any,
    x: State,
    shape: Shape,
    laws: Laws,
    weight: Shape,
    share: float,
    terms: int,
    uses: int,
) -> Step:
    """`share` is how many taps an output sees of the map."""
    W = laws.matrix(layer.init, weight, fans(weight, layout="conv"))
    b = laws.bias(layer.init, (fans(weight, layout="conv")[0], shape[0]), there=layer.bias)
    before, after = positions(x.shape, channel_first=True), positions(shape, channel_first=True)
    taps = share if W.diagonal is None else 1.0
    back = uses * taps * after / before
    common = uses * taps * pairs(after, before)
    moved, way, cross = summed(x, Sum(terms * taps, back, common, W, b), shape)
    at = share / math.prod(weight[2:]) * after
    return Step(
        moved,
        way,
        Weight(at * x.q, at * max(at - 1, 0) * x.t, W.second, round(terms * taps)),
        (NONZERO_MEAN,) if W.mean else (),
        cross=cross,
    )


@lru_cache(maxsize=4096)
def coverage(
    size: Shape, after: Shape, kernel: Shape, stride: Shape, dilation: Shape, begin: Shape
) -> float:
    """Taps inside the map, averaged over outputs."""
    return float(
        math.prod(
            sum(0 <= i * s + k * d - b < n for i in range(m) for k in range(taps)) / m
            for n, m, taps, s, d, b in zip(
                size, after, kernel, stride, dilation, begin, strict=True
            )
        )
    )


def pool(layer: Pool, x: State, shape: Shape) -> Step:
    """Windows of [channels, size, ...]: their means or their largest."""
    axes = len(shape) - 1
    kernel = spread(layer.kernel, axes)
    stride = spread(layer.stride or layer.kernel, axes)
    begin, _ = conv_pads(x.shape[1:], kernel, stride, layer.padding, (1,) * axes)
    k = coverage(x.shape[1:], shape[1:], kernel, stride, (1,) * axes, begin)
    before, after = positions(x.shape, channel_first=True), positions(shape, channel_first=True)
    return _pooled(x, shape, k, before, after, largest=layer.type == "max_pool")


def global_pool(layer: GlobalPool, x: State, shape: Shape) -> Step:
    """All positions of a channel to one."""
    places = positions(x.shape, channel_first=layer.axis == 0)
    step = _pooled(x, shape, places, places, 1, largest=layer.type == "global_max_pool")
    return step._replace(after=step.after.vector(shape))


def _pooled(x: State, shape: Shape, k: float, before: int, after: int, *, largest: bool) -> Step:
    """`k` positions of a window; in the mean each brings 1 / k, of the largest one brings all."""
    idio, cross = x.q - x.t, x.o - x.u
    if largest:
        up, left = extreme(round(k))
        m = x.m + up * math.sqrt(max(idio, 0.0))
        moved = m * m - x.m * x.m
        held = State(
            shape,
            m,
            x.t + moved + left * idio,
            x.t + moved,
            x.u + moved + left * cross,
            x.u + moved,
        )
        return Step(held, _one_of(before, after), None, ("gaussian_before_max",))
    held = State(shape, x.m, x.t + idio / k, x.t, x.u + cross / k, x.u)
    return Step(held, _mean_of(k, before, after))


def _mean_of(k: float, before: int, after: int) -> Transfer:
    """Positions of one window share its gradient."""
    if before == 1:
        return scale(1.0)
    each = after / (before * k)
    inside = after * k * max(k - 1, 0) / (k * k) / (before * (before - 1))
    return Transfer(each, 0.0, inside, pairs(after, before))


def _one_of(before: int, after: int) -> Transfer:
    return scale(after / before, pairs(after, before))


@lru_cache(maxsize=256)
def extreme(k: int) -> tuple[float, float]:
    """Mean and variance of the largest of k standard normals (k = 4: 1.0294, 0.4917)."""
    if k <= 1:
        return 0.0, 1.0
    z = np.linspace(-9, 9, 4001)
    pdf = np.exp(-0.5 * z * z) / ROOT_2PI
    below = np.cumsum(pdf) * (z[1] - z[0]) - 0.5 * pdf * (z[1] - z[0])
    density = k * pdf * below ** (k - 1) * (z[1] - z[0])
    mean = float((z * density).sum())
    return mean, float((z * z * density).sum()) - mean * mean
