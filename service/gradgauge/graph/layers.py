"""Nodes to layers: the rows a reader of the report recognises as parts of their network."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import onnx_ir

from gradgauge.graph.init import fans
from gradgauge.graph.kinds import (
    BY_OP,
    CHANNELS_SECOND,
    FLOATS,
    LINEAR,
    PLUMBING,
    RANDOM,
    RECURRENT,
    Kind,
)

# of a weight's axes the one that counts units (a layer's outputs): (0, 1) with the op's transB
_UNIT_AXIS = {"Conv": 0, "FusedConv": 0, "ConvTranspose": 1, "MatMul": -1, "Gemm": 1}
_LONGEST = 4096  # characters of metadata that are read
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")


@dataclass(frozen=True, slots=True)
class Edge:
    """One use of an activation by a layer: the node (by its first output) and the input's place."""

    consumer: str
    index: int
    value: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One row of the report.

    `output` is the value whose gradient is the layer's activation gradient: that of the layer's own
    op with its bias, before any activation (which is a layer of its own). `inputs` are the
    activations it reads, each through one of `edges`. `depth` counts the layers on the longest path
    from an input. `nodes` are node names. `params` are names of float initializers: those the layer
    multiplies by first (largest first), then those it adds (biases, initial states). `unit_axis` is
    the axis of the first one that counts the layer's units, None where that is not known.
    """

    id: str
    name: str
    scope: str
    op: str
    kind: Kind
    nodes: tuple[str, ...]
    params: tuple[str, ...]
    depth: int
    param_count: int
    inputs: tuple[str, ...]
    edges: tuple[Edge, ...]
    output: str
    shape_in: tuple[int | str | None, ...] | None
    shape_out: tuple[int | str | None, ...] | None
    unit_axis: int | None
    repeat_group: str | None = None


def find_layers(model: onnx_ir.Model) -> tuple[Layer, ...]:
    """Layers in topological order, of the nodes that lie on a way to the graph's outputs."""
    graph = model.graph
    fixed = constant_values(graph)
    live = _ancestors(graph)
    depths: dict[str, int] = {}
    layers: list[Layer] = []
    folded: set[onnx_ir.Node] = set()
    for node in graph:
        if node in folded or node not in live or _is_fixed(node, fixed):
            continue
        kind = _kind(node, fixed)
        before = max((depths.get(_name(v), 0) for v in node.inputs if v is not None), default=0)
        if kind is not None:
            bias = _bias_add(node, fixed)
            if bias is not None:
                folded.add(bias)
            layers.append(_layer(len(layers), node, bias, kind, before, fixed))
            for value in (bias or node).outputs:
                depths[_name(value)] = before + 1
            before += 1
        for value in node.outputs:
            depths.setdefault(_name(value), before)
        if node not in folded:
            _pass_depth(node, depths, before)
    return _with_repeat_groups(layers)


def links(model: onnx_ir.Model, layers: Sequence[Layer]) -> dict[str, tuple[str, ...]]:
    """For every layer id the ids of the layers it reads from, through any plumbing between."""
    owner = {layer.output: layer.id for layer in layers}
    for node, layer in _by_node(model, layers):
        owner |= {_name(v): layer.id for v in node.outputs if v.name}
    values = {_name(v): v for n in model.graph for v in n.outputs}
    return {
        layer.id: tuple(
            dict.fromkeys(found for v in layer.inputs for found in _owners(values.get(v), owner))
        )
        for layer in layers
    }


def _by_node(model: onnx_ir.Model, layers: Sequence[Layer]) -> Iterator[tuple[onnx_ir.Node, Layer]]:
    mine = {name: layer for layer in layers for name in layer.nodes}
    for node in model.graph:
        if node.name in mine:
            yield node, mine[node.name]


def _owners(value: onnx_ir.Value | None, owner: dict[str, str]) -> Iterator[str]:
    todo, seen = [value], set()
    while todo:
        v = todo.pop()
        if v is None or _name(v) in seen:
            continue
        seen.add(_name(v))
        if _name(v) in owner:
            yield owner[_name(v)]
        elif v.producer() is not None:
            todo.extend(v.producer().inputs)  # type: ignore[union-attr]


def constant_values(graph: onnx_ir.Graph) -> set[str]:
    """Names of values that depend on no graph input: initializers and what is computed of them."""
    fixed = set(graph.initializers)
    for node in graph:
        inner = any(_is_graph(a) for a in node.attributes.values())
        held = all(v is None or _name(v) in fixed for v in node.inputs)
        if held and not inner and node.op_type not in RANDOM:
            fixed.update(_name(v) for v in node.outputs)
    return fixed


def first_output(node: onnx_ir.Node) -> str:
    """The name of the node's first output that is not left out: its key in an `Edge`."""
    return next((v.name for v in node.outputs if v.name), "")


def fans_of(layer: Layer, shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a linear layer's weight of `shape`, from where it is stored."""
    if layer.op in CHANNELS_SECOND:
        return fans(shape, layout="conv")
    if len(shape) < 2:
        return math.prod(shape), 1
    return fans(shape[-2:], layout="in_out" if layer.unit_axis in {1, -1} else "out_in")


def parameters(graph: onnx_ir.Graph) -> dict[str, onnx_ir.Value]:
    """Stored float initializers of rank >= 1: what training would change."""
    return {
        name: value
        for name, value in graph.initializers.items()
        if value.dtype in FLOATS and value.shape is not None and len(value.shape) >= 1
    }


def _pass_depth(node: onnx_ir.Node, depths: dict[str, int], depth: int) -> None:
    for value in node.outputs:
        depths[_name(value)] = max(depths.get(_name(value), 0), depth)


def _name(value: onnx_ir.Value) -> str:
    return value.name or ""


def _used_output(node: onnx_ir.Node) -> onnx_ir.Value:
    """The first output somebody reads: of an RNN Y, or Y_h where Y is not used."""
    for value in node.outputs:
        if value.name and (value.is_graph_output() or any(True for _ in value.uses())):
            return value
    return node.outputs[0]


def _is_graph(attribute: onnx_ir.Attr) -> bool:
    return attribute.type in {onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS}


def _is_fixed(node: onnx_ir.Node, fixed: set[str]) -> bool:
    return all(_name(v) in fixed for v in node.outputs)


def _ancestors(graph: onnx_ir.Graph) -> set[onnx_ir.Node]:
    found: set[onnx_ir.Node] = set()
    todo = [v.producer() for v in graph.outputs]
    while todo:
        node = todo.pop()
        if node is None or node in found:
            continue
        found.add(node)
        todo.extend(v.producer() for v in node.inputs if v is not None)
    return found


def _kind(node: onnx_ir.Node, fixed: set[str]) -> Kind | None:
    op = node.op_type
    moving = [v for v in node.inputs if v is not None and _name(v) not in fixed]
    held = [v for v in node.inputs if v is not None and _name(v) in fixed]
    if op in LINEAR:
        return "linear" if any(True for v in held for _ in _cone(v)) else "contraction"
    for ops, kind in BY_OP:
        if op in ops:
            return kind
    if op in {"Add", "Sub", "Sum"} and len(moving) > 1:
        return "add" if all(_is_float(v) for v in moving) else None
    if op in {"Mul", "Div"} and len(moving) > 1:
        return "gate" if all(_is_float(v) for v in moving) else None
    if op in {"Gather", "GatherND"} and node.inputs[0] in held and any(_cone(node.inputs[0])):
        return "embedding"
    return "other" if op not in PLUMBING and any(True for v in held for _ in _cone(v)) else None


def _is_float(value: onnx_ir.Value) -> bool:
    return value.dtype is None or value.dtype in FLOATS


def _cone(value: onnx_ir.Value | None) -> Iterator[onnx_ir.Value]:
    """Float initializers of rank >= 1 that a constant value is computed from."""
    todo, seen = [value], set()
    while todo:
        v = todo.pop()
        if v is None or _name(v) in seen:
            continue
        seen.add(_name(v))
        producer = v.producer()
        if producer is not None:
            todo.extend(producer.inputs)
        elif v.is_initializer() and v.dtype in FLOATS and v.shape is not None and len(v.shape):
            yield v


def _bias_add(node: onnx_ir.Node, fixed: set[str]) -> onnx_ir.Node | None:
    """The Add of a stored bias that follows a MatMul and is its only reader."""
    if node.op_type not in {"MatMul", "Conv", "Einsum"} or len(node.outputs) != 1:
        return None
    out = node.outputs[0]
    uses = list(out.uses())
    if len(uses) != 1 or out.is_graph_output():
        return None
    add = uses[0].node
    if add.op_type != "Add":
        return None
    other = next((v for v in add.inputs if v is not out), None)
    is_bias = other is not None and _name(other) in fixed and _is_vector(other)
    return add if is_bias else None


def _is_vector(value: onnx_ir.Value) -> bool:
    """Whether a stored value has at most one axis longer than 1: positions, say, have two."""
    shapes = [v.shape for v in _cone(value)]
    return bool(shapes) and all(
        shape is not None and sum(d != 1 for d in shape) <= 1 for shape in shapes
    )


def _layer(
    index: int,
    node: onnx_ir.Node,
    bias: onnx_ir.Node | None,
    kind: Kind,
    before: int,
    fixed: set[str],
) -> Layer:
    nodes = (node,) if bias is None else (node, bias)
    edges = tuple(
        Edge(first_output(node), i, _name(v))
        for i, v in enumerate(node.inputs)
        if v is not None and _name(v) not in fixed and _is_float(v)
    )
    params = _params(nodes, fixed)
    out = _used_output(nodes[-1])
    first = next((v for v in node.inputs if v is not None and _name(v) not in fixed), None)
    return Layer(
        id=f"L{index:04d}",
        name=node.name or _name(out),
        scope=_scope(node, [p for p, _ in params]),
        op=node.op_type,
        kind=kind,
        nodes=tuple(n.name or "" for n in nodes),
        params=tuple(p for p, _ in params),
        depth=before,
        param_count=sum(size for _, size in params),
        inputs=tuple(dict.fromkeys(e.value for e in edges)),
        edges=edges,
        output=_name(out),
        shape_in=_shape(first),
        shape_out=_shape(out),
        unit_axis=_unit_axis(node, params[0][0] if params else ""),
    )


def _params(nodes: tuple[onnx_ir.Node, ...], fixed: set[str]) -> list[tuple[str, int]]:
    """Names and sizes: what the node multiplies by before what is added, each largest first."""
    found: dict[str, tuple[bool, int]] = {}
    for i, node in enumerate(nodes):
        for index, value in enumerate(node.inputs):
            if value is not None and _name(value) in fixed:
                for v in _cone(value):
                    size = math.prod(v.shape.numpy()) if v.shape is not None else 1
                    found.setdefault(_name(v), (i > 0 or _is_added(node, index), size))
    order = sorted(found.items(), key=lambda item: (item[1][0], -item[1][1]))
    return [(name, size) for name, (_, size) in order]


def _is_added(node: onnx_ir.Node, index: int) -> bool:
    """Whether an input of the node is a bias, or an initial state of a recurrent one."""
    if node.op_type in RECURRENT:
        return index >= 3
    return node.op_type in LINEAR and index >= 2


def _unit_axis(node: onnx_ir.Node, name: str) -> int | None:
    """Of the stored weight `name`, seen through Identity, Cast and a matrix's Transpose."""
    axis = _UNIT_AXIS.get(node.op_type)
    value = node.inputs[1] if axis is not None and len(node.inputs) > 1 else None
    if axis is None or value is None:
        return None
    transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
    while (producer := value.producer()) is not None:
        if producer.op_type not in {"Identity", "Cast", "Transpose"} or producer.inputs[0] is None:
            return None
        value = producer.inputs[0]
        if producer.op_type == "Transpose":
            if value.shape is None or len(value.shape) != 2:
                return None
            transposed = not transposed
    if _name(value) != name:
        return None
    return (0 if axis in {1, -1} else axis) if transposed else axis


def _shape(value: onnx_ir.Value | None) -> tuple[int | str | None, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else (d.value or None) for d in value.shape)


def _scope(node: onnx_ir.Node, params: list[str]) -> str:
    """The module path: the exporter's metadata, else the node's name, else its parameter's.

    Slashes between modules, whichever exporter wrote it: `/enc/0`.

    What stands in the outermost module itself has its own name for a scope, so that scopes tell
    layers apart.
    """
    written = node.metadata_props.get("pkg.torch.onnx.name_scopes") or ""
    named: list[str] = [a or b for a, b in _QUOTED.findall(written[:_LONGEST])]
    inner = [name for name in named[:-1] if name]
    if inner:
        return "/" + inner[-1].replace(".", "/")
    path = (node.name or "").strip("/").split("/")[:-1]
    if path:
        return "/" + "/".join(_last_parts(path))
    if params and "." in params[0] and "::" not in params[0]:
        return "/" + params[0].rsplit(".", 1)[0].replace(".", "/")
    return node.name or _name(node.outputs[0])


def _last_parts(path: list[str]) -> Iterator[str]:
    """`enc`, `enc.0` (TorchScript repeats the parent) to `enc`, `0`."""
    parent = ""
    for part in path:
        yield part.removeprefix(f"{parent}.").replace(".", "/")
        parent = part


def _with_repeat_groups(layers: list[Layer]) -> tuple[Layer, ...]:
    """Mark layers that repeat one shape of block: same op and scope but for its numbers."""
    keys = [
        f"{re.sub(r'[0-9]+', '*', layer.scope)}:{layer.op}:{layer.shape_in}:{layer.shape_out}"
        for layer in layers
    ]
    counts = Counter(keys)
    names = {key: f"G{i:03d}" for i, key in enumerate(k for k in counts if counts[k] > 1)}
    return tuple(
        replace(layer, repeat_group=names.get(key)) for layer, key in zip(layers, keys, strict=True)
    )
