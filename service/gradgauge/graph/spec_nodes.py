"""Layers of a spec to ONNX nodes and the laws of their weights."""

from collections.abc import Callable
from typing import Any

import onnx_ir

from gradgauge.graph import nodes_maps, nodes_tokens
from gradgauge.graph.init import Law
from gradgauge.graph.nodes_attention import attention
from gradgauge.graph.nodes_recurrent import recurrent
from gradgauge.graph.spec_net import Net, Shape, Value, shape_of, value_of
from gradgauge.schema.activations import ACTIVATIONS
from gradgauge.schema.schemes import resolve
from gradgauge.schema.spec import (
    ActivationLayer,
    ArchSpec,
    Dense,
    Dropout,
    Flatten,
    Gated,
    Parallel,
    Permute,
    Recall,
    Remember,
    Repeat,
    Reshape,
    Residual,
)
from gradgauge.schema.spec_maps import Conv2d
from gradgauge.schema.spec_shapes import SHAPE_RULES, concat_axis, projection_stride
from gradgauge.schema.spec_tokens import Attention, Embedding, Gru, Lstm, Rnn, Unembedding


def build(spec: ArchSpec, seed: int) -> tuple[onnx_ir.Graph, dict[str, Law]]:
    """The graph of a spec whose shapes have been checked, and its initializers' laws."""
    whole = resolve(spec)
    made = Net(seed, whole.defaults)
    kind = spec.input.distribution
    dtype = onnx_ir.DataType.INT64 if kind == "integers" else onnx_ir.DataType.FLOAT
    given = value_of("input", spec.input.shape, dtype)
    law = ("low", "high") if kind == "integers" else ("mean", "scale")
    given.metadata_props["gradgauge.distribution"] = kind
    given.metadata_props.update({f"gradgauge.{k}": str(getattr(spec.input, k)) for k in law})
    x = made.real(_sequence(made, whole.layers, given, ""))
    if x is given:
        x = made.node("Identity", [x], "", shape_of(x))
    x.name = "output"
    graph = onnx_ir.Graph(
        [given],
        [x],
        nodes=made.nodes,
        initializers=list(made.initializers.values()),
        opset_imports={"": made.opset},
        name="spec",
    )
    return graph, made.laws


def _sequence(net: Net, layers: tuple[Any, ...], x: Value, scope: str) -> Value:
    for i, layer in enumerate(layers):
        at = f"{scope}/layers.{i}"
        rule = _CONTAINERS.get(type(layer))
        x = rule(net, layer, x, at) if rule else _single(net, layer, net.real(x), at)
    return x


def _single(net: Net, layer: Any, x: Value, scope: str) -> Value:
    after, _ = SHAPE_RULES[type(layer)](layer, shape_of(x), scope)
    return _RULES[type(layer)](net, layer, x, scope, after)


def _repeat(net: Net, layer: Repeat, x: Value, scope: str) -> Value:
    for time in range(layer.times):
        x = _sequence(net, layer.layers, x, f"{scope}/{time}")
    return x


def _residual(net: Net, layer: Residual, x: Value, scope: str) -> Value:
    x = net.real(x)
    y = _sequence(net, layer.layers, x, scope)
    after = shape_of(y)
    if layer.learned_scale:
        scale = net.weight(scope, "scale", Law("constant", (1,), value=layer.scale))
        y = net.node("Mul", [y, scale], scope, after)
    elif layer.scale != 1.0:
        y = net.node("Mul", [y, net.scalar(scope, "scale", layer.scale)], scope, after)
    if layer.shortcut == "projection":
        x = _projection(net, layer, x, after, f"{scope}/shortcut")
    if layer.shortcut_scale != 1.0:
        held = net.scalar(f"{scope}/shortcut", "scale", layer.shortcut_scale)
        x = net.node("Mul", [x, held], f"{scope}/shortcut", after)
    return net.node("Add", [x, y], scope, after)


def _projection(net: Net, layer: Residual, x: Value, after: Shape, scope: str) -> Value:
    before = shape_of(x)
    if len(before) < 3:
        return net.project(x, after[-1], layer.init, scope, bias=False)
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
    return nodes_maps.conv(net, conv, x, scope, after)


def _parallel(net: Net, layer: Parallel, x: Value, scope: str) -> Value:
    ends = [
        net.real(_sequence(net, branch, x, f"{scope}/branches.{i}"))
        for i, branch in enumerate(layer.branches)
    ]
    after = shape_of(ends[0])
    if layer.merge == "concat":
        axis = concat_axis(layer, len(after))
        joined = sum(shape_of(end)[axis] for end in ends)
        after = (*after[:axis], joined, *after[axis + 1 :])
        return net.node("Concat", ends, scope, after, {"axis": axis + 1})
    if layer.merge != "multiply":
        op = "Sum" if layer.merge == "add" and len(ends) > 2 else _MERGES[layer.merge]
        return net.node(op, ends, scope, after)
    y = ends[0]
    for i, end in enumerate(ends[1:]):
        y = net.node("Mul", [y, end], scope, after, name=f"Mul.{i}" if i else "Mul")
    return y


_MERGES = {"add": "Add", "average": "Mean", "maximum": "Max", "minimum": "Min", "subtract": "Sub"}


def _remember(net: Net, layer: Remember, x: Value, _: str) -> Value:
    net.kept[layer.name] = x
    return x


def _recall(net: Net, layer: Recall, _: Value, __: str) -> Value:
    return net.kept[layer.name]


_CONTAINERS: dict[type, Callable[[Net, Any, Value, str], Value]] = {
    Repeat: _repeat,
    Residual: _residual,
    Parallel: _parallel,
    Remember: _remember,
    Recall: _recall,
    Embedding: nodes_tokens.embedding,
    Unembedding: nodes_tokens.unembedding,
    Attention: attention,
}


def _dense(net: Net, layer: Dense, x: Value, scope: str, _: Shape) -> Value:
    return net.project(x, layer.units, layer.init, scope, bias=layer.bias)


def _gated(net: Net, layer: Gated, x: Value, scope: str, after: Shape) -> Value:
    gate = net.project(x, layer.units, layer.init, f"{scope}/gate", bias=layer.bias)
    value = net.project(x, layer.units, layer.init, f"{scope}/value", bias=layer.bias)
    if layer.function != "identity":
        phi = ActivationLayer(type="activation", function=layer.function)
        if layer.function == "gelu" and layer.approximate is not None:
            phi = phi.model_copy(update={"approximate": layer.approximate})
        gate = activation(net, phi, gate, f"{scope}/gate", after)
    return net.node("Mul", [gate, value], scope, after)


def activation(net: Net, layer: ActivationLayer, x: Value, scope: str, after: Shape) -> Value:
    """The operator of a function, its parameters as inputs where it takes them so."""
    op, names = ACTIVATIONS[layer.function].op, ACTIVATIONS[layer.function].params
    given = {name: layer.parameter(name) for name in names}
    if op in _AS_INPUTS:
        return _AS_INPUTS[op](net, given, x, scope, after)
    if int(given.get("axis", -1)) >= 0:
        given["axis"] = int(given["axis"]) + 1  # the batch comes first
    return net.node(op, [x], scope, after, given)


def _clip(net: Net, given: dict[str, Any], x: Value, scope: str, after: Shape) -> Value:
    bounds = [net.scalar(scope, name, given[name]) for name in ("min", "max")]
    return net.node("Clip", [x, *bounds], scope, after)


def _prelu(net: Net, given: dict[str, Any], x: Value, scope: str, after: Shape) -> Value:
    slope = net.weight(scope, "slope", Law("constant", (1,), value=given["alpha"]))
    return net.node("PRelu", [x, slope], scope, after)


def _swish(net: Net, given: dict[str, Any], x: Value, scope: str, after: Shape) -> Value:
    """The Swish operator is of opset 24; its definition is not."""
    z = x
    if given["alpha"] != 1.0:
        scale = net.scalar(scope, "alpha", given["alpha"])
        z = net.node("Mul", [x, scale], scope, after, name="Scale")
    return net.node("Mul", [x, net.node("Sigmoid", [z], scope, after)], scope, after)


_AS_INPUTS: dict[str, Callable[[Net, dict[str, Any], Value, str, Shape], Value]] = {
    "Clip": _clip,
    "PRelu": _prelu,
    "Swish": _swish,
}


def _dropout(net: Net, layer: Dropout, x: Value, scope: str, after: Shape) -> Value:
    return net.node("Dropout", [x, net.scalar(scope, "rate", layer.rate)], scope, after)


def _flatten(net: Net, _: Flatten, x: Value, scope: str, after: Shape) -> Value:
    return net.node("Flatten", [x], scope, after)


def _reshape(net: Net, _: Reshape, x: Value, scope: str, after: Shape) -> Value:
    sizes = net.integers(scope, "shape", [0, *after])  # 0 keeps the batch
    return net.node("Reshape", [x, sizes], scope, after)


def _permute(net: Net, layer: Permute, x: Value, scope: str, after: Shape) -> Value:
    perm = {"perm": (0, *(axis + 1 for axis in layer.axes))}
    return net.node("Transpose", [x], scope, after, perm)


_RULES: dict[type, Callable[[Net, Any, Value, str, Shape], Value]] = {
    Dense: _dense,
    Gated: _gated,
    ActivationLayer: activation,
    Dropout: _dropout,
    Flatten: _flatten,
    Reshape: _reshape,
    Permute: _permute,
    Rnn: recurrent,
    Lstm: recurrent,
    Gru: recurrent,
    **nodes_maps.RULES,
    **nodes_tokens.RULES,
}
