"""Edits of a graph's wiring: a stored tensor more, an op between two others, another input."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir

Number = int | float


def values_of(graph: onnx_ir.Graph) -> dict[str, onnx_ir.Value]:
    """Every value by name: inputs, initializers, outputs of nodes."""
    found = {v.name: v for v in graph.inputs} | dict(graph.initializers)
    found |= {v.name: v for node in graph for v in node.outputs}
    return {name: value for name, value in found.items() if name}


def store(graph: onnx_ir.Graph, name: str, array: np.ndarray) -> onnx_ir.Value:
    """Add an initializer: this one."""
    tensor = onnx_ir.Tensor(array, name=name)
    value = onnx_ir.Value(name=name, const_value=tensor, shape=onnx_ir.Shape(array.shape))
    value.dtype = tensor.dtype
    graph.register_initializer(value)
    return value


def insert_op(
    graph: onnx_ir.Graph,
    op_type: str,
    inputs: Sequence[onnx_ir.Value],
    output: str,
    attributes: Mapping[str, Number | Sequence[int]],
) -> onnx_ir.Node:
    """Add a node at the end: this one; its output has the type and shape of its first input.

    Of an op that reduces axes the shape is left open.
    """
    first = inputs[0]
    shape = None if op_type.startswith("Reduce") else first.shape
    made = onnx_ir.Value(name=output, type=first.type, shape=shape)
    node = onnx_ir.Node(
        "",
        op_type,
        inputs,
        [_attribute(key, value) for key, value in attributes.items()],
        outputs=[made],
        name=output,
    )
    graph.append(node)
    return node


def _attribute(name: str, value: Number | Sequence[int]) -> onnx_ir.Attr:
    if isinstance(value, int):
        return onnx_ir.AttrInt64(name, value)
    if isinstance(value, float):
        return onnx_ir.AttrFloat32(name, value)
    return onnx_ir.AttrInt64s(name, list(value))


def rewire(node: onnx_ir.Node, index: int, value: onnx_ir.Value) -> None:
    """Let a node read another value at one of its inputs, whatever stood there."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
