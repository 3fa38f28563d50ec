"""Nodes of RNN, LSTM and GRU layers.

Onnxruntime has no batch-first recurrence (layout 1), so the steps are brought to the front.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from gradgauge.graph.spec_net import BATCH, Net, Shape, Value, shape_of
from gradgauge.schema.spec_tokens import GATES, Gru, Lstm, Recurrent, Rnn

_OPS: dict[type, str] = {Rnn: "RNN", Lstm: "LSTM", Gru: "GRU"}
_FORGET = 2  # ONNX orders an LSTM's gates i, o, f, c


def recurrent(net: Net, layer: Recurrent, x: Value, scope: str, after: Shape) -> Value:
    """The states of every step or the last ones, the directions side by side."""
    steps, features = _steps(layer, x)
    ways, h = 1 + layer.bidirectional, layer.units
    inputs: list[Value | None] = [
        _steps_first(net, x, steps, scope),
        _weight(net, layer, scope, "weight", features),
        _weight(net, layer, scope, "recurrent", h),
    ]
    if layer.bias:
        inputs.append(_biases(net, layer, scope, features))
    op, given = _OPS[type(layer)], _attributes(layer)
    if layer.return_sequences:
        every = net.node(op, inputs, scope, after, given, dims=(steps, ways, BATCH, h))
        perm = {"perm": (2, 0, 1, 3)}
        turned = net.node("Transpose", [every], scope, (steps, ways, h), perm, name="BatchFirst")
        return _side_by_side(net, turned, after, scope)
    last = net.node(op, inputs, scope, after, given, outputs=2, dims=(ways, BATCH, h))
    if ways == 1:
        return net.node("Squeeze", [last, net.integers(scope, "axes", [0])], scope, after)
    turned = net.node("Transpose", [last], scope, (ways, h), {"perm": (1, 0, 2)}, name="BatchFirst")
    return _side_by_side(net, turned, after, scope)


def _steps(layer: Recurrent, x: Value) -> Shape:
    """(steps, features): a vector is given `time_steps` times."""
    shape = shape_of(x)
    return shape if len(shape) == 2 else (layer.time_steps or 1, *shape)


def _steps_first(net: Net, x: Value, steps: int, scope: str) -> Value:
    if len(shape_of(x)) == 2:
        turned = (steps, BATCH, shape_of(x)[1])
        return net.node("Transpose", [x], scope, (), {"perm": (1, 0, 2)}, dims=turned)
    features = shape_of(x)[0]
    axes = net.integers(scope, "step", [0])
    one = net.node("Unsqueeze", [x, axes], scope, (), dims=(1, BATCH, features))
    sizes = net.integers(scope, "steps", [steps, 1, 1])
    return net.node("Expand", [one, sizes], scope, (), dims=(steps, BATCH, features))


def _side_by_side(net: Net, turned: Value, after: Shape, scope: str) -> Value:
    sizes = net.integers(scope, "joined", [0, *after])
    return net.node("Reshape", [turned, sizes], scope, after)


def _attributes(layer: Recurrent) -> dict[str, Any]:
    ways = 1 + layer.bidirectional
    given: dict[str, Any] = {"hidden_size": layer.units}
    if layer.bidirectional:
        given["direction"] = "bidirectional"
    word = layer.activation.capitalize()
    names = {Rnn: [word], Lstm: ["Sigmoid", word, word], Gru: ["Sigmoid", word]}[type(layer)]
    if isinstance(layer, Rnn) or layer.activation != "tanh":
        given["activations"] = names * ways
    if isinstance(layer, Gru):
        given["linear_before_reset"] = int(layer.reset_after)
    return given


def _weight(net: Net, layer: Recurrent, scope: str, part: str, columns: int) -> Value:
    """Each direction is one draw; torch's default scales all by the units."""
    ways, rows = 1 + layer.bidirectional, GATES[type(layer)] * layer.units
    law = net.law(layer.init, part, (rows, columns), (columns, rows))
    if law.kind == "torch_default":
        law = replace(law, fan_in=layer.units)
    whole = replace(law, shape=(ways, rows, columns), unit=(rows, columns))
    return net.weight(scope, part, whole)


def _biases(net: Net, layer: Recurrent, scope: str, features: int) -> Value:
    """ONNX's two biases in one row; with `recurrent_bias: false` the second one is no weight."""
    ways, rows = 1 + layer.bidirectional, GATES[type(layer)] * layer.units
    law = net.law(layer.init, "bias", (rows,), (features, rows))
    if law.kind == "torch_default":
        law = replace(law, fan_in=layer.units)
    if isinstance(layer, Lstm) and layer.forget_bias:
        gate = (_FORGET * layer.units, (_FORGET + 1) * layer.units)
        law = replace(law, shifts=((*gate, layer.forget_bias),))
    width = rows * (1 + layer.recurrent_bias)
    bias = net.weight(scope, "bias", replace(law, shape=(ways, width), unit=(rows,)))
    if layer.recurrent_bias:
        return bias
    none = net.constant(scope, "no_recurrent_bias", np.zeros((ways, rows), np.float32))
    return net.node("Concat", [bias, none], scope, (), {"axis": 1}, dims=(ways, 2 * rows))
