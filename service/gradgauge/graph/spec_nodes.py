"""Layers of a spec to ONNX nodes and the laws of their weights.

Scopes mirror the spec's paths: `layers[3]` becomes `/layers.3`, and the eighteenth time through a
repeat's body is a scope of its own: `/layers.2/17/layers.0/Gemm`, its weight
`layers.2.17.layers.0.weight`.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir

from gradgauge.graph.init import Law, draw, fans
from gradgauge.schema.activations import ACTIVATIONS
from gradgauge.schema.laws import InitKind, InitSet, InitSpec
from gradgauge.schema.spec import (
    ActivationLayer,
    ArchSpec,
    AvgPool,
    BatchNorm,
    Conv2d,
    Defaults,
    Dense,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    MaxPool,
    Repeat,
    Residual,
    Rnn,
)
from gradgauge.schema.spec_shapes import SHAPE_RULES, Shape, conv_pads, projection_stride

Value = onnx_ir.Value
_BATCH = "N"
_FALLBACK: dict[str, InitKind] = {
    "weight": "glorot_uniform",
    "recurrent": "orthogonal",
    "bias": "zeros",
}
_NORM_FALLBACK: tuple[tuple[str, InitKind], ...] = (("scale", "ones"), ("bias", "zeros"))


def generator(seed: int, name: str) -> np.random.Generator:
    """The stream one initializer is drawn from: its own, whatever is drawn before it."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))


def build(spec: ArchSpec, seed: int) -> tuple[onnx_ir.Graph, dict[str, Law]]:
    """The graph of a spec whose shapes have been checked, and its initializers' laws."""
    made = _Net(seed, spec.defaults)
    kind = spec.input.distribution
    dtype = onnx_ir.DataType.INT64 if kind == "integers" else onnx_ir.DataType.FLOAT
    given = _value("input", spec.input.shape, dtype)
    law = ("low", "high") if kind == "integers" else ("mean", "scale")
    given.metadata_props["gradgauge.distribution"] = kind
    given.metadata_props.update({f"gradgauge.{k}": str(getattr(spec.input, k)) for k in law})
    x = given
    if kind == "integers":
        to = {"to": onnx_ir.DataType.FLOAT.value}
        x = made.node("Cast", [given], "/input", spec.input.shape, to)
    x = _sequence(made, spec.layers, x, "")
    x.name = "output"
    graph = onnx_ir.Graph(
        [given],
        [x],
        nodes=made.nodes,
        initializers=list(made.initializers.values()),
        opset_imports={"": 21},
        name="spec",
    )
    return graph, made.laws


@dataclass(slots=True)
class _Net:
    """The graph as it grows: nodes in order, initializers and laws by name."""

    seed: int
    defaults: Defaults
    nodes: list[onnx_ir.Node] = field(default_factory=list)
    initializers: dict[str, Value] = field(default_factory=dict)
    laws: dict[str, Law] = field(default_factory=dict)

    def node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        scope: str,
        after: Shape,
        attributes: dict[str, Any] | None = None,
        *,
        name: str = "",
        outputs: int = 1,
        dims: tuple[int | str, ...] | None = None,
    ) -> Value:
        """Append a node named `scope/op`; returns its last output.

        Its shape is `dims`, or `after` behind the batch.
        """
        label = f"{scope}/{name or op}"
        out = Value(
            name=f"{label}_output_{outputs - 1}",
            shape=onnx_ir.Shape((_BATCH, *after) if dims is None else dims),
            type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
        )
        unused = [Value(name="") for _ in range(outputs - 1)]
        self.nodes.append(
            onnx_ir.node(op, inputs, attributes or {}, outputs=[*unused, out], name=label)
        )
        return out

    def weight(self, scope: str, part: str, law: Law) -> Value:
        """An initializer drawn from `law` when it is first read."""
        name = f"{scope.strip('/').replace('/', '.')}.{part}"
        shape = onnx_ir.Shape(law.shape)
        tensor = onnx_ir.LazyTensor(
            partial(_drawn, law, self.seed, name),
            onnx_ir.DataType.FLOAT,
            shape,
            cache=True,
            name=name,
        )
        value = _value(name, law.shape, onnx_ir.DataType.FLOAT, batch=False)
        value.const_value = tensor
        self.initializers[name] = value
        self.laws[name] = law
        return value

    def scalar(self, scope: str, part: str, number: float) -> Value:
        return self.weight(scope, part, Law("constant", (), value=number))

    def law(self, own: InitSet, part: str, shape: Shape, ends: tuple[int, int]) -> Law:
        """The law of a layer's weight: its own, else the spec's default, else ours."""
        init = getattr(own, part) or getattr(self.defaults.init, part)
        return law_of(init or InitSpec(kind=_FALLBACK[part]), shape, ends)


def law_of(init: InitSpec, shape: Shape, ends: tuple[int, int]) -> Law:
    """`ends` are (fan_in, fan_out)."""
    low, high = init.bounds()
    return Law(
        init.kind,
        shape,
        fan_in=ends[0],
        fan_out=ends[1],
        gain=init.gain,
        scale=1.0 if init.std is None else init.std,
        low=low,
        high=high,
        value=init.mean if init.value is None else init.value,
        mode=init.mode,
    )


def _drawn(law: Law, seed: int, name: str) -> onnx_ir.Tensor[Any]:
    return onnx_ir.Tensor(draw(law, generator(seed, name)), name=name)


def _value(name: str, shape: Shape, dtype: onnx_ir.DataType, *, batch: bool = True) -> Value:
    dims: tuple[int | str, ...] = (_BATCH, *shape) if batch else shape
    return Value(name=name, shape=onnx_ir.Shape(dims), type=onnx_ir.TensorType(dtype))


def _shape(value: Value) -> Shape:
    """Without the batch."""
    assert value.shape is not None  # noqa: S101  # every value made here has one
    return tuple(d for d in value.shape if isinstance(d, int))  # the batch is a name


def _sequence(net: _Net, layers: tuple[Any, ...], x: Value, scope: str) -> Value:
    for i, layer in enumerate(layers):
        at = f"{scope}/layers.{i}"
        if isinstance(layer, Repeat):
            for time in range(layer.times):
                x = _sequence(net, layer.layers, x, f"{at}/{time}")
        elif isinstance(layer, Residual):
            x = _residual(net, layer, x, at)
        else:
            after, _ = SHAPE_RULES[type(layer)](layer, _shape(x), at)
            x = _RULES[type(layer)](net, layer, x, at, after)
    return x


def _residual(net: _Net, layer: Residual, x: Value, scope: str) -> Value:
    y = _sequence(net, layer.layers, x, scope)
    after = _shape(y)
    if layer.scale != 1.0:
        y = net.node("Mul", [y, net.scalar(scope, "scale", layer.scale)], scope, after)
    if layer.shortcut == "projection":
        x = _projection(net, layer, x, after, f"{scope}/shortcut")
    return net.node("Add", [x, y], scope, after)


def _projection(net: _Net, layer: Residual, x: Value, after: Shape, scope: str) -> Value:
    before = _shape(x)
    if len(before) < 3:
        dense = Dense(type="dense", units=after[-1], bias=False, init=layer.init)
        return _dense(net, dense, x, scope, after)
    stride = projection_stride(before, after)
    assert stride is not None  # noqa: S101  # counted before it is built
    conv = Conv2d(
        type="conv2d",
        filters=after[0],
        kernel=(1, 1),
        stride=(stride[0], stride[1]),
        bias=False,
        init=layer.init,
    )
    return _conv2d(net, conv, x, scope, after)


def _dense(net: _Net, layer: Dense, x: Value, scope: str, after: Shape) -> Value:
    """A Gemm on vectors, as torch's Linear exports; on [time, features] a MatMul and an Add."""
    features, units = _shape(x)[-1], layer.units
    ends = (features, units)
    flat = len(after) == 1
    shape = (units, features) if flat else (features, units)
    W = net.weight(scope, "weight", net.law(layer.init, "weight", shape, ends))
    bias = [net.weight(scope, "bias", net.law(layer.init, "bias", (units,), ends))]
    if not layer.bias:
        bias = []
    if flat:
        return net.node("Gemm", [x, W, *bias], scope, after, {"transB": 1})
    y = net.node("MatMul", [x, W], scope, after)
    return net.node("Add", [y, *bias], scope, after) if bias else y


def _activation(net: _Net, layer: ActivationLayer, x: Value, scope: str, after: Shape) -> Value:
    op, names = ACTIVATIONS[layer.function].op, ACTIVATIONS[layer.function].params
    given = {name: layer.parameter(name) for name in names}
    if op in _AS_INPUTS:
        return _AS_INPUTS[op](net, given, x, scope, after)
    if int(given.get("axis", -1)) >= 0:
        given["axis"] = int(given["axis"]) + 1  # the batch comes first
    return net.node(op, [x], scope, after, given)


def _clip(net: _Net, given: dict[str, Any], x: Value, scope: str, after: Shape) -> Value:
    bounds = [net.scalar(scope, name, given[name]) for name in ("min", "max")]
    return net.node("Clip", [x, *bounds], scope, after)


def _prelu(net: _Net, given: dict[str, Any], x: Value, scope: str, after: Shape) -> Value:
    slope = net.weight(scope, "slope", Law("constant", (1,), value=given["alpha"]))
    return net.node("PRelu", [x, slope], scope, after)


def _swish(net: _Net, given: dict[str, Any], x: Value, scope: str, after: Shape) -> Value:
    """The Swish operator is of opset 24; its definition is not."""
    z = x
    if given["alpha"] != 1.0:
        scale = net.scalar(scope, "alpha", given["alpha"])
        z = net.node("Mul", [x, scale], scope, after, name="Scale")
    return net.node("Mul", [x, net.node("Sigmoid", [z], scope, after)], scope, after)


_AS_INPUTS: dict[str, Callable[[_Net, dict[str, Any], Value, str, Shape], Value]] = {
    "Clip": _clip,
    "PRelu": _prelu,
    "Swish": _swish,
}


def _conv2d(net: _Net, layer: Conv2d, x: Value, scope: str, after: Shape) -> Value:
    channels, *size = _shape(x)
    shape = (layer.filters, channels // layer.groups, *layer.kernel)
    ends = fans(shape, layout="conv")
    inputs: list[Value | None] = [x]
    inputs.append(net.weight(scope, "weight", net.law(layer.init, "weight", shape, ends)))
    if layer.bias:
        law = net.law(layer.init, "bias", (layer.filters,), ends)
        inputs.append(net.weight(scope, "bias", law))
    begin, end = conv_pads(tuple(size), layer.kernel, layer.stride, layer.padding, layer.dilation)
    attributes = {
        "kernel_shape": layer.kernel,
        "strides": layer.stride,
        "pads": (*begin, *end),
        "dilations": layer.dilation,
        "group": layer.groups,
    }
    return net.node("Conv", inputs, scope, after, attributes)


def _pool(net: _Net, layer: MaxPool | AvgPool, x: Value, scope: str, after: Shape) -> Value:
    stride = layer.stride or layer.kernel
    begin, end = conv_pads(_shape(x)[1:], layer.kernel, stride, layer.padding, (1, 1))
    attributes = {"kernel_shape": layer.kernel, "strides": stride, "pads": (*begin, *end)}
    op = "MaxPool" if isinstance(layer, MaxPool) else "AveragePool"
    return net.node(op, [x], scope, after, attributes)


def _global_avg_pool(net: _Net, _: GlobalAvgPool, x: Value, scope: str, after: Shape) -> Value:
    pooled = net.node("GlobalAveragePool", [x], scope, (*after, 1, 1))
    return net.node("Flatten", [pooled], scope, after)


def _flatten(net: _Net, _: Flatten, x: Value, scope: str, after: Shape) -> Value:
    return net.node("Flatten", [x], scope, after)


def _norm_weights(net: _Net, layer: BatchNorm | LayerNorm, shape: Shape, scope: str) -> list[Value]:
    made = []
    for part, word in _NORM_FALLBACK:
        init = getattr(layer.init, part) or InitSpec(kind=word)
        fan = shape[0]
        made.append(net.weight(scope, part, law_of(init, shape, (fan, fan))))
    return made


def _batch_norm(net: _Net, layer: BatchNorm, x: Value, scope: str, after: Shape) -> Value:
    channels = after[:1]
    weights = _norm_weights(net, layer, channels, scope)
    running = [
        net.weight(scope, "running_mean", Law("zeros", channels)),
        net.weight(scope, "running_var", Law("ones", channels)),
    ]
    inputs = [x, *weights, *running]
    return net.node("BatchNormalization", inputs, scope, after, {"epsilon": layer.epsilon})


def _layer_norm(net: _Net, layer: LayerNorm, x: Value, scope: str, after: Shape) -> Value:
    axis = layer.axis if layer.axis < 0 else layer.axis - len(after)
    weights = _norm_weights(net, layer, after[axis:], scope)
    attributes = {"axis": axis, "epsilon": layer.epsilon}
    return net.node("LayerNormalization", [x, *weights], scope, after, attributes)


def _rnn(net: _Net, layer: Rnn, x: Value, scope: str, after: Shape) -> Value:
    """Onnxruntime has no batch-first RNN (layout 1), so the steps are brought to the front."""
    steps, features = _shape(x)
    h = layer.units
    turned = (steps, _BATCH, features)
    perm = {"perm": (1, 0, 2)}
    inputs: list[Value | None] = [
        net.node("Transpose", [x], scope, after, perm, dims=turned),
        _rnn_weight(net, layer, scope, "weight", (h, features)),
        _rnn_weight(net, layer, scope, "recurrent", (h, h)),
    ]
    if layer.bias:
        inputs.append(_rnn_weight(net, layer, scope, "bias", (h,)))
    given = {"hidden_size": h, "activations": [layer.activation.capitalize()]}
    if not layer.return_sequences:
        last = net.node("RNN", inputs, scope, after, given, outputs=2, dims=(1, _BATCH, h))
        return net.node("Squeeze", [last, _axes(net, scope, 0)], scope, after)
    every = net.node("RNN", inputs, scope, after, given, dims=(steps, 1, _BATCH, h))
    states = (steps, _BATCH, h)
    squeezed = net.node("Squeeze", [every, _axes(net, scope, 1)], scope, after, dims=states)
    return net.node("Transpose", [squeezed], scope, after, perm, name="BatchFirst")


def _rnn_weight(net: _Net, layer: Rnn, scope: str, part: str, unit: Shape) -> Value:
    """One direction in front; both of ONNX's biases in one row. torch's RNN scales all by units."""
    law = net.law(layer.init, part, unit, (unit[-1], layer.units))
    if law.kind == "torch_default":
        law = replace(law, fan_in=layer.units)
    whole = (1, 2 * layer.units) if part == "bias" else (1, *unit)
    return net.weight(scope, part, replace(law, shape=whole, unit=unit))


def _axes(net: _Net, scope: str, axis: int) -> Value:
    name = f"{scope.strip('/').replace('/', '.')}.axes"
    value = _value(name, (1,), onnx_ir.DataType.INT64, batch=False)
    value.const_value = onnx_ir.Tensor(np.array([axis], np.int64), name=name)
    net.initializers[name] = value
    return value


_RULES: dict[type, Callable[[_Net, Any, Value, str, Shape], Value]] = {
    Dense: _dense,
    ActivationLayer: _activation,
    Conv2d: _conv2d,
    MaxPool: _pool,
    AvgPool: _pool,
    GlobalAvgPool: _global_avg_pool,
    BatchNorm: _batch_norm,
    LayerNorm: _layer_norm,
    Flatten: _flatten,
    Rnn: _rnn,
}
