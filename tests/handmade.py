"""ONNX models made node by node, and what the engine reads and measures of them."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gradgauge.graph.layers import Layer, find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read
from gradgauge.sampled.measure import profile
from gradgauge.schema.profile import SampledLayer, SampledProfile

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Inputs and outputs separated by spaces, `-` for one left out; named as its first output."""
    read = [("" if name == "-" else name) for name in inputs.split()]
    made = outputs.split()
    return helper.make_node(op, read, made, name=made[0], **attributes)


def made(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list] | list],
    outputs: str,
    stored: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
) -> bytes:
    """Inputs are shapes of floats, or (element type, shape); stored floats become float32."""
    fed = [
        helper.make_tensor_value_info(name, *(held if isinstance(held, tuple) else (FLOAT, held)))
        for name, held in inputs.items()
    ]
    tensors = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, name)
        for name, a in (stored or {}).items()
    ]
    ends = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs.split()]
    graph = helper.make_graph(nodes, "g", fed, ends, tensors)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def layers_of(model: bytes) -> dict[str, Layer]:
    """Layers by name."""
    return {layer.name: layer for layer in find_layers(read_onnx(model).model)}


def profiled(
    model: bytes, *, data: Any = None, **options: Any
) -> tuple[dict[str, SampledLayer], SampledProfile]:
    """What was sampled, by the layer's name, at profile quick."""
    graph = read_onnx(model)
    layers = find_layers(graph.model)
    reading = read(graph.model, data=data)
    found = profile(graph.model, layers, reading, **{"depth": "quick"} | options)
    return {layer.name: found.layers[layer.id] for layer in layers}, found


def orthogonal(width: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Multiplies every vector's length by `scale`."""
    Q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    return scale * Q
