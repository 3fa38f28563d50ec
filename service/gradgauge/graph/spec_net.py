"""A spec's graph as it grows: nodes in order, initializers drawn by name from their laws.

Scopes mirror the spec's paths: `layers[3]` becomes `/layers.3`, and the eighteenth time through a
repeat's body is a scope of its own: `/layers.2/17/layers.0/Gemm`, its weight
`layers.2.17.layers.0.weight`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx_ir

from gradgauge.graph.init import Array, Law, draw, fans
from gradgauge.schema.laws import InitKind, InitSet, InitSpec, NormInit, TableInit
from gradgauge.schema.spec import Defaults

Shape = tuple[int, ...]
Value = onnx_ir.Value
BATCH = "N"
PLAIN, NORMALISED = 21, 23  # opsets: what most runtimes know; the first with RMSNormalization
_FALLBACK: dict[str, InitSpec] = {
    "weight": InitSpec(kind="glorot_uniform"),
    "recurrent": InitSpec(kind="orthogonal"),
    "bias": InitSpec(kind="zeros"),
}
_TABLE = InitSpec(kind="normal", std=1.0)
_NORM_FALLBACK: dict[str, InitKind] = {"scale": "ones", "bias": "zeros"}


def generator(seed: int, name: str) -> np.random.Generator:
    """The stream one initializer is drawn from: its own, whatever is drawn before it."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))


@dataclass(slots=True)
class Net:
    """The graph as it grows.

    `kept` holds what was remembered, `tables` those of embeddings in order, `biases` the tables of
    relative biases.
    """

    seed: int
    defaults: Defaults
    opset: int = PLAIN
    nodes: list[onnx_ir.Node] = field(default_factory=list)
    initializers: dict[str, Value] = field(default_factory=dict)
    laws: dict[str, Law] = field(default_factory=dict)
    kept: dict[str, Value] = field(default_factory=dict)
    tables: list[Value] = field(default_factory=list)
    biases: dict[str, Value] = field(default_factory=dict)

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
        dtype: onnx_ir.DataType = onnx_ir.DataType.FLOAT,
    ) -> Value:
        """Append a node named `scope/op`; returns its last output.

        Its shape is `dims`, or `after` behind the batch.
        """
        label = f"{scope}/{name or op}"
        out = Value(
            name=f"{label}_output_{outputs - 1}",
            shape=onnx_ir.Shape((BATCH, *after) if dims is None else dims),
            type=onnx_ir.TensorType(dtype),
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
        value = value_of(name, law.shape, onnx_ir.DataType.FLOAT, batch=False)
        value.const_value = tensor
        self.initializers[name] = value
        self.laws[name] = law
        return value

    def scalar(self, scope: str, part: str, number: float) -> Value:
        """A number that is not trained: an initializer without axes."""
        return self.weight(scope, part, Law("constant", (), value=number))

    def integers(self, scope: str, part: str, numbers: Sequence[int]) -> Value:
        """An initializer of indices, axes or sizes."""
        name = f"{scope.strip('/').replace('/', '.')}.{part}"
        value = value_of(name, (len(numbers),), onnx_ir.DataType.INT64, batch=False)
        value.const_value = onnx_ir.Tensor(np.array(numbers, np.int64), name=name)
        self.initializers[name] = value
        return value

    def constant(self, scope: str, part: str, array: Array) -> Value:
        """A Constant node: numbers that are no weight, as an initializer would be."""
        held = onnx_ir.Tensor(array, name=part)
        given = {"value": held}
        return self.node(
            "Constant", [], scope, (), given, name=part, dims=array.shape, dtype=held.dtype
        )

    def real(self, x: Value) -> Value:
        """The value as floats: the input's integers are cast once, where they are first needed."""
        if x.dtype != onnx_ir.DataType.INT64:
            return x
        cast = next((use.node for use in x.uses() if use.node.op_type == "Cast"), None)
        if cast is not None:
            return cast.outputs[0]
        to = {"to": onnx_ir.DataType.FLOAT.value}
        return self.node("Cast", [x], "/input", shape_of(x), to)

    def law(self, own: InitSet, part: str, shape: Shape, ends: tuple[int, int]) -> Law:
        """The law of a layer's weight: its own, else the spec's default, else ours."""
        init = getattr(own, part) or getattr(self.defaults.init, part)
        return law_of(init or _FALLBACK[part], shape, ends)

    def table(self, own: TableInit, shape: Shape, scope: str, part: str = "weight") -> Value:
        """A table that is looked up or added."""
        init = own.weight or self.defaults.init.embedding or _TABLE
        ends = fans(shape[-2:], layout="in_out")
        return self.weight(scope, part, law_of(init, shape, ends))

    def norm(self, own: NormInit, part: str, shape: Shape, scope: str) -> Value:
        """A normalisation's scale or bias."""
        init = getattr(own, part) or InitSpec(kind=_NORM_FALLBACK[part])
        return self.weight(scope, part, law_of(init, shape, (shape[0], shape[0])))

    def project(self, x: Value, units: int, own: InitSet, scope: str, *, bias: bool) -> Value:
        """X W + b on the last axis: a Gemm on vectors, as torch's Linear exports; else a MatMul."""
        *before, features = shape_of(x)
        after, ends = (*before, units), (features, units)
        shape = ends if before else (units, features)
        W = self.weight(scope, "weight", self.law(own, "weight", shape, ends))
        added = []
        if bias:
            law = self.law(own, "bias", (units,), ends)
            added = [self.weight(scope, "bias", law)]
        if not before:
            return self.node("Gemm", [x, W, *added], scope, after, {"transB": 1})
        y = self.node("MatMul", [x, W], scope, after)
        return self.node("Add", [y, *added], scope, after) if bias else y


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


def value_of(name: str, shape: Shape, dtype: onnx_ir.DataType, *, batch: bool = True) -> Value:
    """A value that nothing has made yet: an input or an initializer."""
    dims: tuple[int | str, ...] = (BATCH, *shape) if batch else shape
    return Value(name=name, shape=onnx_ir.Shape(dims), type=onnx_ir.TensorType(dtype))


def shape_of(value: Value) -> Shape:
    """Without the batch."""
    assert value.shape is not None  # noqa: S101  # every value made here has one
    return tuple(d for d in value.shape if isinstance(d, int))  # the batch is a name
