"""Nodes of layers over feature maps, and of the norms."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradgauge.graph.init import Law, fans
from gradgauge.graph.spec_net import NORMALISED, Net, Shape, Value, shape_of
from gradgauge.schema.shape_maps import conv_pads, transpose_pads
from gradgauge.schema.spec_fields import spread
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


def conv(net: Net, layer: Conv, x: Value, scope: str, after: Shape) -> Value:
    """A Conv of one to three axes."""
    channels, *size = shape_of(x)
    begin, end = conv_pads(tuple(size), layer.kernel, layer.stride, layer.padding, layer.dilation)
    shape = (layer.filters, channels // layer.groups, *layer.kernel)
    attributes = {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": (*begin, *end),
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    return net.node("Conv", _weighted(net, layer, x, shape, scope), scope, after, attributes)


def _weighted(
    net: Net, layer: Conv | DepthwiseConv | ConvTranspose, x: Value, shape: Shape, scope: str
) -> list[Value]:
    """The input, the kernel and the bias."""
    ends = fans(shape, layout="conv")
    inputs = [x, net.weight(scope, "weight", net.law(layer.init, "weight", shape, ends))]
    if layer.bias:
        filters = shape[0] if isinstance(layer, DepthwiseConv) else layer.filters
        law = net.law(layer.init, "bias", (filters,), ends)
        inputs.append(net.weight(scope, "bias", law))
    return inputs


def _depthwise(net: Net, layer: DepthwiseConv, x: Value, scope: str, after: Shape) -> Value:
    channels, *size = shape_of(x)
    kernel, stride, dilation = (
        spread(given, len(size)) for given in (layer.kernel, layer.stride, layer.dilation)
    )
    begin, end = conv_pads(tuple(size), kernel, stride, layer.padding, dilation)
    attributes = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": (*begin, *end),
        "dilations": dilation,
        "group": channels,
    }
    inputs = _weighted(net, layer, x, (after[0], 1, *kernel), scope)
    return net.node("Conv", inputs, scope, after, attributes)


def _conv_transpose(net: Net, layer: ConvTranspose, x: Value, scope: str, after: Shape) -> Value:
    """Its fans are those torch.nn.init takes of the stored weight: [in, out / groups, kernel]."""
    channels, *size = shape_of(x)
    kernel, stride, dilation, extra = (
        spread(given, len(size))
        for given in (layer.kernel, layer.stride, layer.dilation, layer.output_padding)
    )
    begin, end, grown = transpose_pads(kernel, stride, layer.padding, dilation)
    attributes = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": (*begin, *end),
        "dilations": dilation,
        "output_padding": tuple(e + g for e, g in zip(extra, grown, strict=True)),
        "group": layer.groups,
    }
    inputs = _weighted(net, layer, x, (channels, layer.filters // layer.groups, *kernel), scope)
    return net.node("ConvTranspose", inputs, scope, after, attributes)


def _pool(net: Net, layer: Pool, x: Value, scope: str, after: Shape) -> Value:
    size = shape_of(x)[1:]
    kernel = spread(layer.kernel, len(size))
    stride = spread(layer.stride or layer.kernel, len(size))
    begin, end = conv_pads(size, kernel, stride, layer.padding, (1,) * len(size))
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": (*begin, *end)}
    op = "MaxPool" if isinstance(layer, MaxPool) else "AveragePool"
    return net.node(op, [x], scope, after, attributes)


def _global_pool(net: Net, layer: GlobalPool, x: Value, scope: str, after: Shape) -> Value:
    mean = isinstance(layer, GlobalAvgPool)
    if layer.axis == -1:
        axes = net.integers(scope, "axes", [1])
        op = "ReduceMean" if mean else "ReduceMax"
        return net.node(op, [x, axes], scope, after, {"keepdims": 0})
    op = "GlobalAveragePool" if mean else "GlobalMaxPool"
    ones = (1,) * (len(shape_of(x)) - 1)
    return net.node("Flatten", [net.node(op, [x], scope, (*after, *ones))], scope, after)


def _batch_norm(net: Net, layer: BatchNorm, x: Value, scope: str, after: Shape) -> Value:
    """ONNX's has its channels second; the features of [time, features] are brought there."""
    last = len(after) == 2 and layer.axis == -1
    perm = {"perm": (0, 2, 1)}
    turned = (after[1], after[0]) if last else after
    channels = turned[:1]
    if last:
        x = net.node("Transpose", [x], scope, turned, perm)
    inputs = [
        x,
        *_norm_weights(net, layer, channels, scope),
        net.weight(scope, "running_mean", Law("zeros", channels)),
        net.weight(scope, "running_var", Law("ones", channels)),
    ]
    y = net.node("BatchNormalization", inputs, scope, turned, {"epsilon": layer.epsilon})
    return net.node("Transpose", [y], scope, after, perm, name="FeaturesLast") if last else y


def _norm_weights(
    net: Net, layer: BatchNorm | LayerNorm | GroupNorm | InstanceNorm, shape: Shape, scope: str
) -> list[Value]:
    """Scale and bias; of one that is not learned, its value, which is no weight."""
    return [
        net.norm(layer.init, part, shape, scope)
        if getattr(layer, part)
        else net.constant(scope, f"no_{part}", np.full(shape, value, np.float32))
        for part, value in (("scale", 1.0), ("bias", 0.0))
    ]


def _layer_norm(net: Net, layer: LayerNorm, x: Value, scope: str, after: Shape) -> Value:
    axis = layer.axis if layer.axis < 0 else layer.axis - len(after)
    inputs = [x, *_norm_weights(net, layer, after[axis:], scope)]
    inputs = inputs if layer.bias else inputs[:2]
    attributes = {"axis": axis, "epsilon": layer.epsilon}
    return net.node("LayerNormalization", inputs, scope, after, attributes)


def rms_norm(net: Net, layer: RmsNorm, x: Value, scope: str, after: Shape) -> Value:
    """The operator came with opset 23, to which the model then belongs."""
    net.opset = NORMALISED
    axis = layer.axis if layer.axis < 0 else layer.axis - len(after)
    inputs = [x, net.norm(layer.init, "scale", after[axis:], scope)]
    attributes = {"axis": axis, "epsilon": layer.epsilon}
    return net.node("RMSNormalization", inputs, scope, after, attributes)


def _group_norm(net: Net, layer: GroupNorm, x: Value, scope: str, after: Shape) -> Value:
    inputs = [x, *_norm_weights(net, layer, after[:1], scope)]
    attributes = {"num_groups": layer.groups, "epsilon": layer.epsilon}
    return net.node("GroupNormalization", inputs, scope, after, attributes)


def _instance_norm(net: Net, layer: InstanceNorm, x: Value, scope: str, after: Shape) -> Value:
    inputs = [x, *_norm_weights(net, layer, after[:1], scope)]
    attributes = {"epsilon": layer.epsilon}
    return net.node("InstanceNormalization", inputs, scope, after, attributes)


RULES: dict[type, Callable[[Net, Any, Value, str, Shape], Value]] = {
    Conv1d: conv,
    Conv2d: conv,
    Conv3d: conv,
    ConvTranspose: _conv_transpose,
    DepthwiseConv: _depthwise,
    MaxPool: _pool,
    AvgPool: _pool,
    GlobalAvgPool: _global_pool,
    GlobalMaxPool: _global_pool,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    RmsNorm: rms_norm,
    GroupNorm: _group_norm,
    InstanceNorm: _instance_norm,
}
