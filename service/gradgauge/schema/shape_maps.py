"""Shapes and parameters of layers over feature maps, and of the norms."""

import math
from collections.abc import Callable
from typing import Any

from gradgauge.schema.shape_state import Shape, check_axis, needs, over_axes, say, wrong
from gradgauge.schema.spec_fields import Padding, spread
from gradgauge.schema.spec_maps import (
    AvgPool,
    BatchNorm,
    Conv,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose,
    DepthwiseConv,
    GlobalAvgPool,
    GlobalMaxPool,
    GlobalPool,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    MaxPool,
    Pool,
    RmsNorm,
)

_MAP = "its input is [channels, height, width], with one to three sizes behind the channels"
_CONV = {
    "conv1d": (2, "its input is [channels, length]"),
    "conv2d": (3, "its input is [channels, height, width]"),
    "conv3d": (4, "its input is [channels, depth, height, width]"),
}


def conv_pads(
    size: Shape, kernel: Shape, stride: Shape, padding: Padding, dilation: Shape
) -> tuple[Shape, Shape]:
    """(begin, end) padding of each spatial axis; `same` puts the odd one at the end."""
    if not isinstance(padding, str):
        each = spread(padding, len(size))
        return each, each
    if padding == "valid":
        return (0,) * len(size), (0,) * len(size)
    begin, end = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        begin.append(total // 2)
        end.append(total - total // 2)
    return tuple(begin), tuple(end)


def transpose_pads(
    kernel: Shape, stride: Shape, padding: Padding, dilation: Shape
) -> tuple[Shape, Shape, Shape]:
    """(begin, end) padding of a transposed convolution, and what `same` needs as output padding."""
    axes = len(kernel)
    if not isinstance(padding, str):
        each = spread(padding, axes)
        return each, each, (0,) * axes
    if padding == "valid":
        return (0,) * axes, (0,) * axes, (0,) * axes
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    cut = [max(span - s, 0) for span, s in zip(spans, stride, strict=True)]
    grown = [max(s - span, 0) for span, s in zip(spans, stride, strict=True)]
    return tuple(c // 2 for c in cut), tuple(c - c // 2 for c in cut), tuple(grown)


def _conv(layer: Conv, shape: Shape, path: str) -> tuple[Shape, int]:
    rank, hint = _CONV[layer.type]
    needs(shape, (rank,), path, layer.type, hint)
    _check_groups(layer.groups, shape[0], layer.filters, path)
    after = _windows(layer, layer.kernel, layer.stride, layer.dilation, shape, path)
    weight = layer.filters * (shape[0] // layer.groups) * math.prod(layer.kernel)
    return (layer.filters, *after), weight + layer.filters * layer.bias


def _depthwise(layer: DepthwiseConv, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2, 3, 4), path, layer.type, _MAP)
    axes = len(shape) - 1
    kernel = over_axes(layer.kernel, axes, f"{path}.kernel")
    stride = over_axes(layer.stride, axes, f"{path}.stride")
    dilation = over_axes(layer.dilation, axes, f"{path}.dilation")
    after = _windows(layer, kernel, stride, dilation, shape, path)
    channels = shape[0] * layer.multiplier
    return (channels, *after), channels * (math.prod(kernel) + layer.bias)


def _conv_transpose(layer: ConvTranspose, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2, 3, 4), path, layer.type, _MAP)
    _check_groups(layer.groups, shape[0], layer.filters, path)
    axes = len(shape) - 1
    kernel = over_axes(layer.kernel, axes, f"{path}.kernel")
    stride = over_axes(layer.stride, axes, f"{path}.stride")
    dilation = over_axes(layer.dilation, axes, f"{path}.dilation")
    _check_padding(layer.padding, axes, path)
    extra = over_axes(layer.output_padding, axes, f"{path}.output_padding")
    begin, end, grown = transpose_pads(kernel, stride, layer.padding, dilation)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise wrong(
            f"{path}.output_padding",
            "the output padding is not below stride or dilation",
            "it chooses among the sizes the convolution could have come from",
        )
    after = tuple(
        (n - 1) * s + d * (k - 1) + 1 + e + g - b - t
        for n, s, d, k, e, g, b, t in zip(
            shape[1:], stride, dilation, kernel, extra, grown, begin, end, strict=True
        )
    )
    if min(after) < 1:
        raise wrong(f"{path}.padding", "the padding leaves nothing", "use less of it")
    weight = shape[0] * (layer.filters // layer.groups) * math.prod(kernel)
    return (layer.filters, *after), weight + layer.filters * layer.bias


def _check_groups(groups: int, channels: int, filters: int, path: str) -> None:
    if channels % groups or filters % groups:
        raise wrong(
            f"{path}.groups",
            f"{groups} groups do not divide {channels} channels and {filters} filters",
            "choose a common divisor",
        )


def _pool(layer: Pool, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2, 3, 4), path, layer.type, _MAP)
    axes = len(shape) - 1
    kernel = over_axes(layer.kernel, axes, f"{path}.kernel")
    stride = over_axes(layer.stride or layer.kernel, axes, f"{path}.stride")
    if not isinstance(layer.padding, str) and any(
        2 * p > k for p, k in zip(_check_padding(layer.padding, axes, path), kernel, strict=True)
    ):
        raise wrong(f"{path}.padding", "a window would lie in the padding", "at most half of it")
    return (shape[0], *_windows(layer, kernel, stride, (1,) * axes, shape, path)), 0


def _check_padding(padding: Padding, axes: int, path: str) -> Shape:
    return () if isinstance(padding, str) else over_axes(padding, axes, f"{path}.padding")


def _windows(
    layer: Conv | DepthwiseConv | Pool,
    kernel: Shape,
    stride: Shape,
    dilation: Shape,
    shape: Shape,
    path: str,
) -> Shape:
    size = shape[1:]
    _check_padding(layer.padding, len(size), path)
    begin, end = conv_pads(size, kernel, stride, layer.padding, dilation)
    after = []
    for n, k, s, d, b, e in zip(size, kernel, stride, dilation, begin, end, strict=True):
        room = n + b + e - (k - 1) * d - 1
        if room < 0:
            raise wrong(
                f"{path}.kernel",
                f"a window of {(k - 1) * d + 1} does not fit into {n} places padded to {n + b + e}",
                "use a smaller kernel, fewer poolings, or `padding: same`",
            )
        after.append(room // s + 1)
    return tuple(after)


def _global_pool(layer: GlobalPool, shape: Shape, path: str) -> tuple[Shape, int]:
    if layer.axis == 0:
        needs(shape, (2, 3, 4), path, layer.type, _MAP)
        return shape[:1], 0
    needs(shape, (2,), path, layer.type, "`axis: -1` is for [time, features]")
    return shape[1:], 0


def _batch_norm(layer: BatchNorm, shape: Shape, path: str) -> tuple[Shape, int]:
    if len(shape) == 2 and layer.axis is None:
        raise wrong(
            path,
            f"of {say(shape)} batch_norm cannot tell which axis to keep",
            "say `axis: 0` for [channels, length], `axis: -1` for [time, features], where "
            "layer_norm is the usual choice",
        )
    if len(shape) > 2 and layer.axis == -1:
        raise wrong(f"{path}.axis", "a feature map has its channels first", "leave it out")
    return shape, (layer.scale + layer.bias) * shape[layer.axis or 0]


def _layer_norm(layer: LayerNorm | RmsNorm, shape: Shape, path: str) -> tuple[Shape, int]:
    check_axis(layer.axis, shape, path)
    parts = layer.scale + layer.bias if isinstance(layer, LayerNorm) else 1
    return shape, parts * math.prod(shape[layer.axis :])


def _instance_norm(layer: GroupNorm | InstanceNorm, shape: Shape, path: str) -> tuple[Shape, int]:
    needs(shape, (2, 3, 4), path, layer.type, _MAP)
    if isinstance(layer, GroupNorm) and shape[0] % layer.groups:
        raise wrong(
            f"{path}.groups",
            f"{layer.groups} groups do not divide {shape[0]} channels",
            "choose a divisor",
        )
    return shape, (layer.scale + layer.bias) * shape[0]


# layer, input shape, path -> output shape, trained parameters
RULES: dict[type, Callable[[Any, Shape, str], tuple[Shape, int]]] = {
    Conv1d: _conv,
    Conv2d: _conv,
    Conv3d: _conv,
    ConvTranspose: _conv_transpose,
    DepthwiseConv: _depthwise,
    MaxPool: _pool,
    AvgPool: _pool,
    GlobalAvgPool: _global_pool,
    GlobalMaxPool: _global_pool,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    RmsNorm: _layer_norm,
    GroupNorm: _instance_norm,
    InstanceNorm: _instance_norm,
}
