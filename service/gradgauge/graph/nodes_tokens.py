"""Nodes of layers over [time, features] but attention and recurrence: tables, steps, logits."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradgauge.graph.init import Array
from gradgauge.graph.spec_net import Net, Shape, Value, shape_of
from gradgauge.schema.spec_tokens import (
    ClassToken,
    Embedding,
    PositionalEmbedding,
    SegmentEmbedding,
    Select,
    Unembedding,
)


def sinusoids(steps: int, features: int) -> Array:
    """Vaswani et al. 2017, section 3.5: sines at even places, cosines at odd ones."""
    place = np.arange(features)
    rate = 10_000.0 ** (-2 * (place // 2) / features)
    angle = np.arange(steps)[:, None] * rate
    return np.where(place % 2, np.cos(angle), np.sin(angle)).astype(np.float32)


def embedding(net: Net, layer: Embedding, x: Value, scope: str) -> Value:
    """A Gather from the table, which an unembedding may read again."""
    table = net.table(layer.init, (layer.entries, layer.units), scope)
    net.tables.append(table)
    return net.node("Gather", [table, x], scope, (*shape_of(x), layer.units))


def unembedding(net: Net, layer: Unembedding, x: Value, scope: str) -> Value:
    """The last embedding's table, transposed, behind the features."""
    x = net.real(x)
    table = net.tables[-1]
    entries, units = shape_of(table)
    before = shape_of(x)[:-1]
    if layer.scale != 1.0:
        x = net.node("Mul", [x, net.scalar(scope, "scale", layer.scale)], scope, shape_of(x))
    bias = []
    if layer.bias:
        law = net.law(layer.init, "bias", (entries,), (units, entries))
        bias = [net.weight(scope, "bias", law)]
    after = (*before, entries)
    if not before:
        return net.node("Gemm", [x, table, *bias], scope, after, {"transB": 1})
    turned = net.node("Transpose", [table], scope, (), {"perm": (1, 0)}, dims=(units, entries))
    y = net.node("MatMul", [x, turned], scope, after)
    return net.node("Add", [y, *bias], scope, after) if bias else y


def _positional(net: Net, layer: PositionalEmbedding, x: Value, scope: str, after: Shape) -> Value:
    steps, features = after
    if layer.kind == "sinusoidal":
        held = net.constant(scope, "sinusoids", sinusoids(steps, features))
        return net.node("Add", [x, held], scope, after)
    rows = layer.positions or steps
    table = net.table(layer.init, (rows, features), scope)
    if rows > steps:
        first = net.integers(scope, "steps", range(steps))
        table = net.node("Gather", [table, first], scope, (), dims=after)
    return net.node("Add", [x, table], scope, after)


def _segment(net: Net, layer: SegmentEmbedding, x: Value, scope: str, after: Shape) -> Value:
    table = net.table(layer.init, (layer.segments, after[1]), scope)
    first = net.integers(scope, "segment", [0])
    row = net.node("Gather", [table, first], scope, (), dims=(1, after[1]))
    return net.node("Add", [x, row], scope, after)


def _class_token(net: Net, layer: ClassToken, x: Value, scope: str, after: Shape) -> Value:
    """Both padded to the new length and added, so that the batch's size is nowhere needed."""
    steps = after[0] - layer.count
    tokens = net.table(layer.init, (1, layer.count, after[1]), scope)
    behind = net.integers(scope, "behind", [0, 0, 0, 0, steps, 0])
    front = net.integers(scope, "front", [0, layer.count, 0, 0, 0, 0])
    padded = net.node("Pad", [x, front], scope, after)
    first = net.node("Pad", [tokens, behind], scope, (), name="Tokens", dims=(1, *after))
    return net.node("Add", [padded, first], scope, after)


def _select(net: Net, layer: Select, x: Value, scope: str, after: Shape) -> Value:
    index = layer.index % shape_of(x)[0]
    at = net.constant(scope, "index", np.array(index, np.int64))
    return net.node("Gather", [x, at], scope, after, {"axis": 1})


RULES: dict[type, Callable[[Net, Any, Value, str, Shape], Value]] = {
    PositionalEmbedding: _positional,
    SegmentEmbedding: _segment,
    ClassToken: _class_token,
    Select: _select,
}
