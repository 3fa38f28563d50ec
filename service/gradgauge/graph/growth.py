"""Nodes that would make ONNX's shape inference carry too much, hidden from it by name.

Gather adds the ranks of its inputs and Concat the lengths of its: a chain of forty doubles either
forty times. ConstantOfShape over a long vector has as many axes as the vector elements. Bounds from
above on both are followed here, and a node beyond them is left without inferred shapes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx

HIDDEN = "gradgauge.hidden"
_AXES = 64  # axes, and sequences in sequences
_CARRIED = 1 << 12  # elements of a shape computed as data
_UNKNOWN = 1 << 62
_INTEGERS = {onnx.TensorProto.INT32, onnx.TensorProto.INT64}


@dataclass(slots=True)
class Hidden:
    """What the renamed nodes were called."""

    nodes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, node: onnx.NodeProto) -> None:
        """Rename a node so that inference passes it by."""
        self.nodes.append((node.op_type, node.domain))
        node.op_type, node.domain = f"{HIDDEN}{len(self.nodes) - 1}", HIDDEN

    def restore(self, graph: onnx.GraphProto) -> None:
        """Give the nodes of `graph`, a copy or the same, their names back."""
        for node in graph.node:
            if node.domain == HIDDEN:
                op, domain = self.nodes[int(node.op_type.removeprefix(HIDDEN))]
                node.op_type = op
                if domain:
                    node.domain = domain
                else:
                    node.ClearField("domain")
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    self.restore(attribute.g)


def hide(graph: onnx.GraphProto) -> Hidden:
    """Rename the nodes of a sorted, function-free graph that inference must not see."""
    hidden = Hidden()
    _graph(graph, {}, {}, hidden)
    return hidden


def _graph(
    graph: onnx.GraphProto,
    outer: Mapping[str, int],
    lengths: Mapping[str, int],
    hidden: Hidden,
) -> None:
    """Follow bounds through one graph: axes of each value, elements where it may be a shape."""
    ranks, sizes = dict(outer), dict(lengths)
    for info in (*graph.input, *graph.value_info, *graph.output):
        ranks[info.name] = _declared(info.type)
        sizes.setdefault(info.name, _declared_size(info.type))
    for tensor in graph.initializer:
        ranks[tensor.name], sizes[tensor.name] = len(tensor.dims), _count(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _graph(attribute.g, ranks, sizes, hidden)
        known = [ranks.get(name, 0) for name in node.input]
        held = [sizes.get(name, _UNKNOWN) for name in node.input]
        top, size = _axes(node, known, held), _elements(node, known, held)
        if top > _AXES or _CARRIED < size < _UNKNOWN:
            hidden.add(node)
            top, size = 0, _UNKNOWN
        for name in node.output:
            ranks[name], sizes[name] = max(top, ranks.get(name, 0)), size


def _from_data(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    """As many axes as the shape it is given has elements."""
    shape = held[:1] if node.op_type == "ConstantOfShape" else held[1:2]
    least = max(ranks, default=0) if node.op_type == "Expand" else 0
    return max([*shape, _listed(node, "shape"), least])


def _added(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    return sum(ranks[:1]) + max(_listed(node, "axes"), sum(held[1:2]))


def _flat(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    del ranks, held
    least = 2 if node.op_type in {"NonZero", "Flatten"} else 1
    return max([least, *(len(a.t.dims) for a in node.attribute if a.name == "value")])


def _one_more(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    del node, held
    return max(ranks, default=0) + 1


def _wrapped(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    """A sequence around it: each counts as many axes, since messages may not nest much deeper."""
    del node, held
    return max(ranks, default=0) + _AXES // 4


def _summed(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    del node, held
    return max(sum(ranks) - 1, 0)


def _written(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    """As an attribute spells it: a permutation's entries, an equation's letters."""
    del held
    spelt = [max(len(a.ints), len(a.s)) for a in node.attribute]
    return max([*spelt, *ranks], default=0)


def _fewer(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    """Reductions and Squeeze over known axes; what is unknown takes nothing away."""
    first = sum(ranks[:1])
    kept = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
    if node.op_type != "Squeeze" and kept:
        return first
    given = sum(size for size in held[1:2] if size < _UNKNOWN)
    taken = max(_listed(node, "axes"), given, int(node.op_type.startswith("ArgM")))
    return max(first - taken, 0)


_AXES_OF: dict[str, Callable[[onnx.NodeProto, list[int], list[int]], int]] = {
    **dict.fromkeys(
        ("Reshape", "Expand", "ConstantOfShape", "RandomNormal", "RandomUniform", "Col2Im"),
        _from_data,
    ),
    **dict.fromkeys(("Gather", "GatherND"), _summed),
    **dict.fromkeys(("Shape", "Size", "NonZero", "Range", "Flatten", "Constant"), _flat),
    **dict.fromkeys(("Transpose", "Einsum"), _written),
    **dict.fromkeys(
        (
            "ConcatFromSequence",
            "Loop",
            "OneHot",
            "STFT",
            "Scan",
            "StringSplit",
            "Unique",
        ),
        _one_more,
    ),
    **dict.fromkeys(("Optional", "SequenceConstruct", "SplitToSequence"), _wrapped),
    "Unsqueeze": _added,
}
_FEWER = ("Reduce", "Squeeze", "ArgM")
_SAME_ELEMENTS = {
    "Abs",
    "Cast",
    "CastLike",
    "Identity",
    "Neg",
    "Not",
    "Reshape",
    "Sign",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
_ELEMENTWISE = {
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "Less",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Where",
}


def _axes(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    """A bound on the output's axes; elementwise and other operators have their inputs' most."""
    if node.op_type.startswith(_FEWER):
        return _fewer(node, ranks, held)
    rule = _AXES_OF.get(node.op_type)
    return rule(node, ranks, held) if rule else max(ranks, default=0)


def _elements(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    """A bound on the output's elements where it may be a shape, else _UNKNOWN."""
    op, size = node.op_type, _UNKNOWN
    if op == "Concat":
        size = sum(held)
    elif op == "Shape":
        size = sum(ranks[:1])
    elif op == "Size":
        size = 1
    elif op == "Constant":
        size = max((_constant(a) for a in node.attribute), default=_UNKNOWN)
    elif op == "Gather" and max(ranks[:1], default=2) <= 1:
        size = max(held[1:2], default=_UNKNOWN)
    elif op in _SAME_ELEMENTS:
        size = max(held[:1], default=_UNKNOWN)
    elif op in _ELEMENTWISE and held:
        size = max(held) if max(ranks) <= 1 else math.prod(held)
    return min(size, _UNKNOWN)


def _listed(node: onnx.NodeProto, name: str) -> int:
    return max((len(a.ints) for a in node.attribute if a.name == name), default=0)


def _constant(attribute: onnx.AttributeProto) -> int:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _count(attribute.t)
    return max(len(attribute.ints), 1)


def _count(tensor: onnx.TensorProto) -> int:
    """Elements of what may be a shape: floats never are one."""
    return math.prod(tensor.dims) if tensor.data_type in _INTEGERS else _UNKNOWN


def _declared(given: Any, depth: int = 0) -> int:
    kind = given.WhichOneof("value")
    if kind == "tensor_type":
        return depth + len(given.tensor_type.shape.dim)
    if kind in {"sequence_type", "optional_type"}:
        return _declared(getattr(given, kind).elem_type, depth + _AXES // 4)
    return depth


def _declared_size(given: Any) -> int:
    """Elements of a declared integer tensor; unknown where an axis is symbolic."""
    tensor = given.tensor_type
    if tensor.elem_type not in _INTEGERS or not tensor.HasField("shape"):
        return _UNKNOWN
    dims = [d.dim_value if d.HasField("dim_value") else _UNKNOWN for d in tensor.shape.dim]
    return min(math.prod(dims), _UNKNOWN)
