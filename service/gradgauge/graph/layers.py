"""Nodes to layers: the rows a reader of the report recognises as parts of their network."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir

Kind = Literal[
    "linear",
    "activation",
    "normalisation",
    "contraction",
    "recurrent",
    "pooling",
    "add",
    "gate",
    "embedding",
    "other",
]

ACTIVATIONS = frozenset(
    "Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Sigmoid HardSigmoid Tanh Softplus Softsign "
    "Gelu FastGelu BiasGelu QuickGelu HardSwish Swish Mish Erf Clip Sin Cos Exp Log Sqrt".split()
)
SATURATING = frozenset({"Sigmoid", "Tanh", "Softsign", "HardSigmoid", "Erf"})
RECTIFIERS = frozenset({"Relu", "ThresholdedRelu", "HardSwish"})
NORMS = frozenset(
    "BatchNormalization LayerNormalization SimplifiedLayerNormalization RMSNormalization "
    "InstanceNormalization GroupNormalization LpNormalization MeanVarianceNormalization LRN "
    "SkipLayerNormalization SkipSimplifiedLayerNormalization".split()
)
RECURRENT = frozenset({"RNN", "LSTM", "GRU"})
POOLING = frozenset(
    "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool ReduceMean".split()
)
LINEAR = frozenset("Gemm MatMul FusedMatMul Conv FusedConv ConvTranspose Einsum".split())
CONTRACTION = frozenset("Softmax Attention MultiHeadAttention GroupQueryAttention".split())
FLOATS = frozenset(
    {
        onnx_ir.DataType.FLOAT,
        onnx_ir.DataType.DOUBLE,
        onnx_ir.DataType.FLOAT16,
        onnx_ir.DataType.BFLOAT16,
        onnx_ir.DataType.FLOAT8E4M3FN,
        onnx_ir.DataType.FLOAT8E4M3FNUZ,
        onnx_ir.DataType.FLOAT8E5M2,
        onnx_ir.DataType.FLOAT8E5M2FNUZ,
    }
)


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
    from an input. `nodes` are node names; `params` names of float initializers, largest first.
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


def constant_values(graph: onnx_ir.Graph) -> set[str]:
    """Names of values that depend on no graph input: initializers and what is computed of them."""
    fixed = set(graph.initializers)
    for node in graph:
        inner = any(isinstance(a, onnx_ir.Attr) and _is_graph(a) for a in node.attributes.values())
        if not inner and all(v is None or _name(v) in fixed for v in node.inputs):
            if node.op_type not in {"RandomNormal", "RandomUniform"}:
                fixed.update(_name(v) for v in node.outputs)
    return fixed


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
    for ops, kind in _BY_OP:
        if op in ops:
            return kind
    if op in {"Add", "Sub", "Sum"} and len(moving) > 1:
        return "add" if all(_is_float(v) for v in moving) else None
    if op in {"Mul", "Div"} and len(moving) > 1:
        return "gate" if all(_is_float(v) for v in moving) else None
    if op in {"Gather", "GatherND"} and node.inputs[0] in held and any(_cone(node.inputs[0])):
        return "embedding"
    return "other" if op not in _PLUMBING and any(True for v in held for _ in _cone(v)) else None


_BY_OP: tuple[tuple[frozenset[str], Kind], ...] = (
    (ACTIVATIONS, "activation"),
    (NORMS, "normalisation"),
    (RECURRENT, "recurrent"),
    (POOLING, "pooling"),
    (CONTRACTION, "contraction"),
)
_PLUMBING = frozenset(
    "Reshape Transpose Expand Tile Slice Split Concat Squeeze Unsqueeze Flatten Identity Cast Pad "
    "Where Gather GatherND GatherElements ScatterND ScatterElements Shape Constant Resize".split()
)


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
    is_bias = other is not None and _name(other) in fixed and any(True for _ in _cone(other))
    return add if is_bias else None


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
        Edge(_name(node.outputs[0]), i, _name(v))
        for i, v in enumerate(node.inputs)
        if v is not None and _name(v) not in fixed and _is_float(v)
    )
    params = _params(nodes, fixed)
    out = nodes[-1].outputs[0]
    first = next((v for v in node.inputs if v is not None and _name(v) not in fixed), None)
    scope = _scope(node, [p for p, _ in params])
    return Layer(
        id=f"L{index:04d}",
        name=node.name or _name(out),
        scope=scope,
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
    )


def _params(nodes: tuple[onnx_ir.Node, ...], fixed: set[str]) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and _name(value) in fixed:
                for v in _cone(value):
                    size = v.shape.numpy() if v.shape is not None else ()
                    count = 1
                    for dim in size:
                        count *= dim
                    found[_name(v)] = count
    return sorted(found.items(), key=lambda item: -item[1])


def _shape(value: onnx_ir.Value | None) -> tuple[int | str | None, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else (d.value or None) for d in value.shape)


def _scope(node: onnx_ir.Node, params: list[str]) -> str:
    """The module path: the exporter's metadata, else the node's name, else its parameter's."""
    written = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if written:
        scopes = ast.literal_eval(written)
        named = [s for s in scopes[:-1] if s]
        if named:
            return "/" + str(named[-1]).replace(".", "/")
    if node.name and "/" in node.name:
        return node.name.rsplit("/", 1)[0] or "/"
    if params and "." in params[0]:
        return "/" + params[0].rsplit(".", 1)[0]
    return node.name or _name(node.outputs[0])


def _with_repeat_groups(layers: list[Layer]) -> tuple[Layer, ...]:
    """Mark layers that repeat one shape of block: same op and scope but for its numbers."""
    keys = [
        f"{re.sub(r'[0-9]+', '*', layer.scope)}:{layer.op}:{layer.shape_in}:{layer.shape_out}"
        for layer in layers
    ]
    counts = Counter(keys)
    names = {key: f"G{i:03d}" for i, key in enumerate(k for k in counts if counts[k] > 1)}
    return tuple(
        replace(layer, repeat_group=names.get(key))
        for layer, key in zip(layers, keys, strict=True)
    )
