"""Nodes of attention: four projections around a softmax, spelled out as exporters spell it."""

import math

import numpy as np
import onnx_ir

from gradgauge.graph.init import Array
from gradgauge.graph.nodes_maps import rms_norm
from gradgauge.graph.spec_net import Net, Shape, Value, shape_of
from gradgauge.schema.laws import InitSet
from gradgauge.schema.shape_tokens import head_dim
from gradgauge.schema.spec_maps import RmsNorm
from gradgauge.schema.spec_tokens import Attention, RelativeBias

MASKED = -1e4  # exp(-1e4) is 0 in float32, and the number itself is one in float16


def attention(net: Net, layer: Attention, x: Value, scope: str) -> Value:
    """softmax(Q K^T / scale) V, head by head, then the output's projection."""
    x = net.real(x)
    source = x if layer.memory is None else net.real(net.kept[layer.memory])
    steps, features = shape_of(x)
    d = head_dim(layer, features)
    few = layer.kv_heads or layer.heads
    Q = _turned(net, layer, _heads(net, layer, x, "query", layer.heads, d, scope), "query", scope)
    K = _turned(net, layer, _heads(net, layer, source, "key", few, d, scope), "key", scope)
    V = _heads(net, layer, source, "value", few, d, scope)
    if few < layer.heads:
        Q, K, V = _grouped(net, Q, K, V, scope)
    weights = _weights(net, layer, _logits(net, layer, Q, K, d, scope), scope)
    mixed = net.node("MatMul", [weights, V], scope, (*shape_of(weights)[:-1], d), name="Mix")
    joined = _joined(net, mixed, steps, scope)
    last = layer.bias if layer.output_bias is None else layer.output_bias
    own = laws_of(layer, "output")
    return net.project(joined, layer.units or features, own, f"{scope}/output", bias=last)


def laws_of(layer: Attention, part: str) -> InitSet:
    """The laws of one of the four projections."""
    weight = getattr(layer.init, part) or layer.init.weight
    return InitSet(weight=weight, bias=layer.init.bias)


def _heads(
    net: Net, layer: Attention, x: Value, part: str, heads: int, d: int, scope: str
) -> Value:
    """[time, features] to [heads, time, d]."""
    inner = f"{scope}/{part}"
    steps = shape_of(x)[0]
    y = net.project(x, heads * d, laws_of(layer, part), inner, bias=layer.bias)
    split = _reshaped(net, y, (steps, heads, d), inner)
    if layer.qk_norm and part != "value":
        norm = RmsNorm(type="rms_norm")
        split = rms_norm(net, norm, split, f"{inner}/norm", (steps, heads, d))
    return net.node("Transpose", [split], inner, (heads, steps, d), {"perm": (0, 2, 1, 3)})


def _turned(net: Net, layer: Attention, x: Value, part: str, scope: str) -> Value:
    """Rotary positions (Su et al. 2021): place i turns with place i + d/2 by an angle of its own.

    x cos + (x with its halves swapped) sin, the first half's sine negative.
    """
    if layer.rotary is None:
        return x
    inner = f"{scope}/{part}/rotary"
    _, steps, d = shape_of(x)
    cos, sin = rotations(steps, d, layer.rotary)
    swap = net.integers(inner, "swap", [*range(d // 2, d), *range(d // 2)])
    swapped = net.node("Gather", [x, swap], inner, shape_of(x), {"axis": 3})
    parts = [
        net.node("Mul", [v, net.constant(inner, word, held)], inner, shape_of(x), name=name)
        for v, word, held, name in (
            (x, "cos", cos, "Cosines"),
            (swapped, "sin", sin, "Sines"),
        )
    ]
    return net.node("Add", parts, inner, shape_of(x))


def rotations(steps: int, d: int, base: float) -> tuple[Array, Array]:
    """Cosines and signed sines, [steps, d]."""
    half = base ** (-np.arange(0, d, 2) / d)
    angle = np.arange(steps)[:, None] * np.concatenate([half, half])
    sign = np.where(np.arange(d) < d // 2, -1.0, 1.0)
    return np.cos(angle).astype(np.float32), (sign * np.sin(angle)).astype(np.float32)


def _grouped(net: Net, Q: Value, K: Value, V: Value, scope: str) -> tuple[Value, Value, Value]:
    """Queries as [kv_heads, group, time, d], keys and values as [kv_heads, 1, time, d]."""
    heads, steps, d = shape_of(Q)
    few, source, _ = shape_of(K)
    axes = net.integers(scope, "group", [2])
    shape = (few, 1, source, d)
    return (
        _reshaped(net, Q, (few, heads // few, steps, d), scope, name="Groups"),
        net.node("Unsqueeze", [K, axes], scope, shape, name="SharedKeys"),
        net.node("Unsqueeze", [V, axes], scope, shape, name="SharedValues"),
    )


def _logits(net: Net, layer: Attention, Q: Value, K: Value, d: int, scope: str) -> Value:
    *lead, source, _ = shape_of(K)
    last = len(lead) + 1
    perm = {"perm": (*range(last), last + 1, last)}
    turned = net.node("Transpose", [K], scope, (*lead, d, source), perm, name="Keys")
    after = (*shape_of(Q)[:-1], source)
    logits = net.node("MatMul", [Q, turned], scope, after, name="Logits")
    usual = 1 / d if layer.scaling == "inverse" else 1 / math.sqrt(d)
    scale = usual if layer.scale is None else layer.scale
    if scale == 1.0:
        return logits
    return net.node("Mul", [logits, net.scalar(scope, "scale", scale)], scope, after)


def _weights(net: Net, layer: Attention, logits: Value, scope: str) -> Value:
    after = shape_of(logits)
    steps, source = after[-2:]
    if layer.relative_bias is not None:
        bias = _relative(net, layer, layer.relative_bias, (steps, source), scope)
        logits = net.node("Add", [logits, bias], scope, after, name="Relative")
    if layer.causal:
        logits = _masked(net, logits, scope)
    return net.node("Softmax", [logits], scope, after, {"axis": -1})


def _masked(net: Net, logits: Value, scope: str) -> Value:
    """A step sees none that comes after it."""
    after = shape_of(logits)
    order = np.arange(after[-1], dtype=np.int64)
    rows, columns = (
        net.constant(scope, name, held)
        for name, held in (("rows", order[:, None]), ("columns", order[None]))
    )
    later = net.node(
        "Greater", [columns, rows], scope, (), dims=after[-2:], dtype=onnx_ir.DataType.BOOL
    )
    return net.node("Where", [later, net.scalar(scope, "masked", MASKED), logits], scope, after)


def _relative(
    net: Net, layer: Attention, bias: RelativeBias, pairs: tuple[int, int], scope: str
) -> Value:
    """The table's row for the bucket of each pair's distance, [1, heads, time, source]."""
    inner = f"{scope}/relative_bias"
    if bias.name not in net.biases:
        net.biases[bias.name] = net.table(bias.init, (bias.buckets, layer.heads), inner)
    chosen = buckets(*pairs, bias.buckets, bias.max_distance, causal=layer.causal)
    at = net.constant(inner, "buckets", chosen)
    rows = net.node("Gather", [net.biases[bias.name], at], inner, (), dims=(*pairs, layer.heads))
    dims = (layer.heads, *pairs)
    heads = net.node("Transpose", [rows], inner, (), {"perm": (2, 0, 1)}, dims=dims)
    first = net.integers(inner, "axes", [0])
    return net.node("Unsqueeze", [heads, first], inner, (), dims=(1, *dims))


def buckets(steps: int, source: int, count: int, max_distance: int, *, causal: bool) -> Array:
    """Raffel et al. 2020, section 2.1: near distances one by one, far ones in logarithmic steps."""
    ahead = np.arange(source)[None] - np.arange(steps)[:, None]
    side = np.zeros_like(ahead)
    if not causal:
        count //= 2
        side = np.where(ahead > 0, count, 0)
    distance = np.maximum(-ahead, 0) if causal else np.abs(ahead)
    near = count // 2
    ratio = np.log(np.maximum(distance, 1) / near) / math.log(max_distance / near)
    far = np.minimum(near + (ratio * (count - near)).astype(np.int64), count - 1)
    found: Array = side + np.where(distance < near, distance, far)
    return found


def _joined(net: Net, mixed: Value, steps: int, scope: str) -> Value:
    """Heads side by side again, [time, heads d]."""
    *lead, _, d = shape_of(mixed)
    heads = math.prod(lead)
    if len(lead) > 1:
        mixed = _reshaped(net, mixed, (heads, steps, d), scope, name="Heads")
    perm = {"perm": (0, 2, 1, 3)}
    turned = net.node("Transpose", [mixed], scope, (steps, heads, d), perm)
    return _reshaped(net, turned, (steps, heads * d), scope, name="Join")


def _reshaped(net: Net, x: Value, shape: Shape, scope: str, *, name: str = "Reshape") -> Value:
    sizes = net.integers(scope, f"{name.lower()}_shape", [0, *shape])  # 0 keeps the batch
    return net.node("Reshape", [x, sizes], scope, shape, name=name)
