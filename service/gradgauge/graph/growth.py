"""How large shape inference could grow what it carries, from above, before it is asked.

Gather adds the ranks of its inputs and Concat the lengths of its: a chain of forty doubles either
forty times. Inference that follows such a chain never comes back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

_CARRIED = 1 << 12  # elements of a shape computed as data
_MOST = 64  # axes, and sequences in sequences
_CAP = 1 << 40


@dataclass(frozen=True, slots=True)
class Growth:
    """Upper bounds over all values: axes (and nesting), and elements of propagated shapes."""

    axes: int
    carried: int

    @property
    def inferable(self) -> bool:
        """Whether shapes can be inferred at all."""
        return self.axes <= _MOST

    @property
    def propagable(self) -> bool:
        """Whether the values of shape computations can be followed too."""
        return self.inferable and self.carried <= _CARRIED


def growth(graph: onnx.GraphProto) -> Growth:
    """Bounds for a sorted graph whose functions are inlined."""
    walk = _Walk()
    walk.graph(graph, {}, {})
    return Growth(walk.axes, walk.carried)


@dataclass(slots=True)
class _Walk:
    axes: int = 0
    carried: int = 0

    def graph(
        self, graph: onnx.GraphProto, axes: Mapping[str, int], carried: Mapping[str, int]
    ) -> None:
        ranks, sizes = dict(axes), dict(carried)
        for info in (*graph.input, *graph.value_info, *graph.output):
            ranks[info.name] = _declared(info.type)
        for tensor in graph.initializer:
            ranks[tensor.name] = len(tensor.dims)
            sizes[tensor.name] = _count(tensor) if len(tensor.dims) <= 1 else 0
        for node in graph.node:
            inner = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            for sub in inner:
                self.graph(sub, ranks, sizes)
            known = [ranks.get(name, 0) for name in node.input if name]
            held = [sizes.get(name, 0) for name in node.input if name]
            top = min(_axes(node, known, held), _CAP)
            size = min(_elements(node, held, known), _CAP)
            self.axes, self.carried = max(self.axes, top), max(self.carried, size)
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
    return max([2, *(len(a.t.dims) for a in node.attribute if a.name == "value")])


def _one_more(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    del node, held
    return max(ranks, default=0) + 1


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
    first = ranks[0] if ranks else 0
    kept = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
    if node.op_type != "Squeeze" and kept:
        return first
    taken = max(_listed(node, "axes"), sum(held[1:2]), int(node.op_type.startswith("ArgM")))
    return max(first - taken, 0)


_AXES = {
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
            "Optional",
            "STFT",
            "Scan",
            "SequenceConstruct",
            "SequenceInsert",
            "SplitToSequence",
            "StringSplit",
            "Unique",
        ),
        _one_more,
    ),
    "Unsqueeze": _added,
}
_FEWER = ("Reduce", "Squeeze", "ArgM")


def _axes(node: onnx.NodeProto, ranks: list[int], held: list[int]) -> int:
    """A bound on the output's axes; elementwise and other operators have their inputs' most."""
    op = node.op_type
    if op.startswith(_FEWER):
        return _fewer(node, ranks, held)
    rule = _AXES.get(op)
    return rule(node, ranks, held) if rule else max(ranks, default=0)


def _elements(node: onnx.NodeProto, held: list[int], ranks: list[int]) -> int:
    """Elements of the value where inference follows it as data."""
    op = node.op_type
    if op == "Concat":
        return sum(held)
    if op == "Shape":
        return max(ranks, default=0)
    if op == "Constant":
        return max((_constant(a) for a in node.attribute), default=0)
    if op == "Gather":
        return max([1, *held[1:2]]) if held[:1] != [0] else 0
    if op in {"Size", "Squeeze"} and not any(held):
        return 1
    return max(held, default=0)


def _listed(node: onnx.NodeProto, name: str) -> int:
    return max((len(a.ints) for a in node.attribute if a.name == name), default=0)


def _constant(attribute: onnx.AttributeProto) -> int:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _count(attribute.t) if len(attribute.t.dims) <= 1 else 0
    return max(len(attribute.ints), len(attribute.floats), 1)


def _count(tensor: onnx.TensorProto) -> int:
    return int(tensor.dims[0]) if len(tensor.dims) else 1


def _declared(given: Any, depth: int = 0) -> int:
    kind = given.WhichOneof("value")
    if kind == "tensor_type":
        return depth + len(given.tensor_type.shape.dim)
    if kind in {"sequence_type", "optional_type"}:
        return _declared(getattr(given, kind).elem_type, depth + 1)
    return depth
