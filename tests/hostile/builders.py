"""Small ONNX models, sound and broken, built from onnx.helper, and how they are read."""

import io
import itertools
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradgauge.errors import InvalidModel, LimitExceeded
from gradgauge.graph.limits import Limits
from gradgauge.graph.model import Graph
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.refusals import CODES

OPSET = 18
F = "functions"


def weight(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """Standard normal float32."""
    drawn = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(drawn, name)


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def any_shape(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, None)


def model(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = OPSET,
) -> onnx.ModelProto:
    """One input `x` of [1, 4] and one output `y` unless told otherwise."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("x", 1, 4)] if inputs is None else list(inputs),
        [any_shape("y")] if outputs is None else list(outputs),
        list(initializers),
    )
    imports = [helper.make_opsetid("", opset)]
    if functions:
        imports.append(helper.make_opsetid(F, 1))
    return helper.make_model(graph, functions=list(functions), opset_imports=imports, ir_version=10)


def mlp(width: int = 32) -> onnx.ModelProto:
    """Two dense layers, weights of more than a kilobyte."""
    return model(
        [
            helper.make_node("Gemm", ["x", "W1", "b1"], ["h"], name="fc1"),
            helper.make_node("Relu", ["h"], ["a"], name="act"),
            helper.make_node("Gemm", ["a", "W2"], ["y"], name="fc2"),
        ],
        inputs=[value("x", "N", 16)],
        initializers=[
            weight("W1", 16, width),
            weight("b1", width, seed=1),
            weight("W2", width, 8, seed=2),
        ],
    )


def chain(
    op: str, length: int, *, twice: bool = False, **attributes: object
) -> list[onnx.NodeProto]:
    """`length` nodes, each fed by the one before (twice over if told)."""
    names = ["x", *(f"v{i}" for i in range(1, length)), "y"]
    return [
        helper.make_node(op, [a, a] if twice else [a], [b], **attributes)
        for a, b in itertools.pairwise(names)
    ]


def function(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    *,
    opset: int = OPSET,
    attributes: Sequence[str] = (),
) -> onnx.FunctionProto:
    """A function of `a` that gives `b`."""
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(F, 1)]
    return helper.make_function(F, name, ["a"], ["b"], list(nodes), imports, list(attributes))


def call(name: str, given: str, made: str) -> onnx.NodeProto:
    return helper.make_node(name, [given], [made], domain=F)


def doubling(depth: int) -> onnx.ModelProto:
    """Functions that each call the one below twice: 2^depth nodes once inlined."""
    functions = [function("F0", [helper.make_node("Relu", ["a"], ["b"])])]
    functions += [
        function(f"F{i}", [call(f"F{i - 1}", "a", "t"), call(f"F{i - 1}", "t", "b")])
        for i in range(1, depth + 1)
    ]
    return model([call(f"F{depth}", "x", "y")], functions=functions)


def branch(name: str, nodes: Sequence[onnx.NodeProto], made: str) -> onnx.GraphProto:
    """A subgraph without inputs, as If takes."""
    return helper.make_graph(list(nodes), name, [], [any_shape(made)])


def nested_ifs(depth: int) -> onnx.ModelProto:
    """If in If, `depth` graphs deep."""
    graph = branch("leaf", [helper.make_node("Relu", ["x"], ["o"])], "o")
    for _ in range(depth - 1):
        graph = branch("b", [_if(graph, "o")], "o")
    return model([_if(graph, "y")], initializers=[_true()])


def _if(graph: onnx.GraphProto, made: str) -> onnx.NodeProto:
    other = branch("else", [helper.make_node("Neg", ["x"], ["e"])], "e")
    return helper.make_node("If", ["c"], [made], then_branch=graph, else_branch=other)


def _true() -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(1, dtype=bool), "c")


def external(location: str = "w.bin", *, elements: int = 8, **entries: str) -> onnx.ModelProto:
    """One UINT8 initializer whose bytes are elsewhere."""
    tensor = onnx.TensorProto(
        name="w",
        data_type=TensorProto.UINT8,
        dims=[elements],
        data_location=TensorProto.EXTERNAL,
    )
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=text)
    return model(
        [helper.make_node("Identity", ["w"], ["y"])],
        inputs=[],
        outputs=[any_shape("y", TensorProto.UINT8)],
        initializers=[tensor],
    )


def sparse(values: list[float], indices: np.ndarray, dims: list[int]) -> onnx.ModelProto:
    proto = model([helper.make_node("Add", ["x", "s"], ["y"])])
    proto.graph.sparse_initializer.add(
        values=numpy_helper.from_array(np.array(values, np.float32), "s"),
        indices=numpy_helper.from_array(indices.astype(np.int64), "s_at"),
        dims=dims,
    )
    return proto


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of `members`."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return out.getvalue()


Source = onnx.ModelProto | bytes | Path


def read(source: Source, **bounds: int) -> Graph:
    """What the reader makes of a model; `bounds` replace default limits."""
    given = source.SerializeToString() if isinstance(source, onnx.ModelProto) else source
    return read_onnx(given, limits=replace(Limits(), **bounds))


def refused(source: Source) -> InvalidModel:
    """The refusal that reading ends in."""
    with pytest.raises(InvalidModel) as caught:
        read(source)
    assert caught.value.code in CODES
    return caught.value


def limited(source: Source, **bounds: int) -> LimitExceeded:
    """The limit that reading ends in."""
    with pytest.raises(LimitExceeded) as caught:
        read(source, **bounds)
    assert caught.value.code == "limit_exceeded"
    return caught.value


def held(graph: Graph, name: str = "w") -> np.ndarray:
    """An initializer's values."""
    return graph.model.graph.initializers[name].const_value.numpy()
