"""`reinitialize`: a graph whose weights are drawn anew from the laws they were drawn from once.

What training moved goes back to where networks start: weight matrices to a draw from the law that
fits all of one use (graph/infer_law.py), norms' scales to 1, their shifts and running means to 0,
running variances to 1, biases to what goes with the weights' law. Whatever else is stored
(positions, scalars, quantised weights) stays.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_ir

from gradgauge.graph.infer_law import Inferred, Stored, infer, look, overlap
from gradgauge.graph.init import Law, draw
from gradgauge.graph.kinds import FLOATS, GATES
from gradgauge.graph.layers import Layer, fans_of, find_layers, parameters
from gradgauge.graph.model import Graph, GraphWarning
from gradgauge.graph.spec_net import generator

_USES = {
    "dense": "dense weights",
    "convolution": "convolution kernels",
    "input": "input weights of recurrent layers",
    "recurrence": "recurrent weights",
    "table": "embedding tables",
}
# inputs of a norm after the first, and what they start from
_NORMS: dict[str, tuple[float, ...]] = {
    "BatchNormalization": (1.0, 0.0, 0.0, 1.0),
    "GroupNormalization": (1.0, 0.0),
    "InstanceNormalization": (1.0, 0.0),
    "LayerNormalization": (1.0, 0.0),
    "RMSNormalization": (1.0,),
    "SimplifiedLayerNormalization": (1.0,),
}
SAID = "gradgauge.reinitialized"  # where the copy's metadata says what was drawn anew
_NAMES = 4  # names a warning lists of what is left as it is


@dataclass(slots=True)
class _Found:
    """By initializer: its law, the use it is put to, and the layers that hold it."""

    laws: dict[str, Law] = field(default_factory=dict)
    uses: dict[str, dict[str, Stored]] = field(default_factory=dict)
    biases: list[tuple[str, str, Law]] = field(default_factory=list)


def redrawn(graph: Graph, seed: int) -> Graph:
    """A copy of `graph` with every weight drawn anew; `graph` itself where it is of a spec.

    One warning a use (W_REINITIALIZED) names the law, how far its deviation is from that of the
    weights that were stored, and the tensors; one more what was left as it is. Weights are drawn
    when they are first read, from PCG64 seeded by `seed` and their own name. The copy's metadata
    say it too.
    """
    if graph.format == "spec":
        return graph
    model = graph.model.clone()
    found = _Found()
    nodes = {node.name or "": node for node in model.graph}
    for layer in find_layers(model):
        _layer(model, layer, nodes[layer.nodes[0]], found)
    told = {use: infer(tuple(held.values())) for use, held in found.uses.items()}
    for use, held in found.uses.items():
        found.laws |= dict(zip(held, told[use].laws, strict=True))
    for name, weight, frame in found.biases:
        found.laws.setdefault(name, _bias(found.laws.get(weight), frame))
    for name, law in found.laws.items():
        _replace(model.graph.initializers[name], law, seed)
    laws = [f"{_USES[use]} {law.name}" for use, law in told.items()]
    model.metadata_props[SAID] = "; ".join((f"weights drawn anew by seed {seed}", *laws))
    warnings = (*graph.warnings, *_warnings(model, found, told))
    return replace(graph, model=model, laws=found.laws, warnings=warnings)


def _layer(model: onnx_ir.Model, layer: Layer, node: onnx_ir.Node, found: _Found) -> None:
    if layer.op in _NORMS:
        for value, start in zip(node.inputs[1:], _NORMS[layer.op], strict=False):
            if (name := _stored(model, value)) is not None:
                found.laws[name] = Law("constant", _shape(model, name), value=start)
    elif layer.op in GATES:
        _recurrent(model, layer, node, found)
    elif layer.kind in {"linear", "embedding"} and layer.params:
        name, *added = layer.params
        shape = _shape(model, name)
        if len(shape) < 2:
            return
        fan_in, fan_out = fans_of(layer, shape)
        convolves = layer.kind == "linear" and len(shape) > 2
        use = "table" if layer.kind == "embedding" else "convolution" if convolves else "dense"
        _weigh(model, use, name, Law("zeros", shape, fan_in, fan_out), found)
        for bias in added if layer.kind == "linear" else ():
            found.biases.append((bias, name, Law("zeros", _shape(model, bias), fan_in)))


def _recurrent(model: onnx_ir.Model, layer: Layer, node: onnx_ir.Node, found: _Found) -> None:
    """W [directions, gates units, features], R [.., units], B [directions, 2 gates units]."""
    W, R, B = (_stored(model, v) for v in (*node.inputs[1:4], None)[:3])
    if R is None:
        return
    _, wide, units = _shape(model, R)
    GATES[layer.op]
    shape = _shape(model, R)
    each = Law("zeros", shape, units, units, unit=(units, units))
    whole = replace(each, unit=(wide, units))  # as Keras draws one matrix for all gates
    held = _array(model, R)
    frame = min(each, whole, key=lambda law: overlap(law, held))
    _weigh(model, "recurrence", R, frame, found)
    if W is not None:
        features = _shape(model, W)[2]
        frame = Law("zeros", _shape(model, W), features, wide, unit=(wide, features))
        _weigh(model, "input", W, frame, found, torch_fan=units)
    if B is not None:
        frame = Law("zeros", _shape(model, B), units, shifts=_forget(model, layer.op, B, units))
        found.biases.append((B, R, frame))


def _forget(model: onnx_ir.Model, op: str, name: str, units: int) -> tuple[Any, ...]:
    """1 on an LSTM's forget gates (the third of i, o, f, c), where the stored biases stand high."""
    if op != "LSTM":
        return ()
    B = _array(model, name).astype(np.float64)
    gate = slice(2 * units, 3 * units)
    both = B[:, : 4 * units][:, gate] + B[:, 4 * units :][:, gate]
    return ((2 * units, 3 * units, 1.0),) if both.mean() > 0.5 else ()


def _weigh(
    model: onnx_ir.Model,
    use: str,
    name: str,
    frame: Law,
    found: _Found,
    torch_fan: int | None = None,
) -> None:
    """Keep what a weight looks like; one that is all zeros stays so."""
    if name in found.laws or name in found.uses.get(use, {}):
        return
    held = _array(model, name)
    seen = look(frame, held, torch_fan)
    if seen is not None:
        found.uses.setdefault(use, {})[name] = seen
    elif not held.any():
        found.laws[name] = replace(frame, kind="zeros")


def _bias(weight: Law | None, frame: Law) -> Law:
    """Torch draws biases like weights, between +-1/sqrt(fan-in); every other law leaves zeros."""
    if weight is None or weight.kind != "torch_default":
        return frame
    bound = frame.fan_in**-0.5
    return replace(frame, kind="uniform", low=-bound, high=bound)


def _stored(model: onnx_ir.Model, value: onnx_ir.Value | None) -> str | None:
    name = value.name if value is not None else None
    held = model.graph.initializers.get(name) if name else None
    return name if held is not None and held.dtype in FLOATS and held.shape is not None else None


def _shape(model: onnx_ir.Model, name: str) -> tuple[int, ...]:
    shape = model.graph.initializers[name].shape
    return tuple(shape.numpy()) if shape is not None else ()


def _array(model: onnx_ir.Model, name: str) -> np.ndarray:
    held = model.graph.initializers[name].const_value
    return held.numpy() if held is not None else np.zeros(_shape(model, name))


def _replace(value: onnx_ir.Value, law: Law, seed: int) -> None:
    dtype, name = value.dtype, value.name or ""
    if dtype is None or value.shape is None:
        return
    value.const_value = onnx_ir.LazyTensor(
        partial(_drawn, law, seed, name, dtype), dtype, value.shape, cache=True, name=name
    )


def _drawn(law: Law, seed: int, name: str, dtype: onnx_ir.DataType) -> onnx_ir.Tensor[Any]:
    array = draw(law, generator(seed, name), np.float32).astype(dtype.numpy())
    return onnx_ir.Tensor(array, dtype=dtype, name=name)


def _warnings(
    model: onnx_ir.Model, found: _Found, told: Mapping[str, Inferred]
) -> Iterator[GraphWarning]:
    for use, law in told.items():
        near = f" (those stored have {law.factor:.2f} times its deviation)"
        names = ", ".join(found.uses[use])
        message = f"{_USES[use]} are drawn anew: {law.name}{near}: {names}"
        yield GraphWarning("W_REINITIALIZED", message)
    left = [name for name in parameters(model.graph) if name not in found.laws]
    if left:
        told_of = ", ".join(left[:_NAMES]) + (", ..." if len(left) > _NAMES else "")
        message = f"{len(left)} stored tensors are no weights of a known law and stay: {told_of}"
        yield GraphWarning("W_REINITIALIZED", message)
