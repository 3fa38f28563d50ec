"""A model file opened to be run: its weights held once, the rest of it parsed."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
from onnx_ir.external_data import set_base_dir

from gradgauge.graph.container import parse
from gradgauge.graph.elements import ELEMENTS
from gradgauge.graph.external import External
from gradgauge.graph.limits import DEFAULT_LIMITS
from gradgauge.graph.private import Mapped, tensor
from gradgauge.graph.read_onnx import mapped
from gradgauge.graph.tally import Tally
from gradgauge.ops.row import ROWS
from gradgauge.sampled.tensors import Private


def opened(path: Path) -> onnx_ir.Model:
    """The model, its main graph's weights private to the caller.

    Weights in data files are maps of those, copied page by page where they are changed; the files
    stay as they are. Weights in the model file itself are copied out of it once: there they may
    begin at any byte, and torch's kernels ask for whole elements.

    Raises:
        InvalidModel: the file is no ONNX model, or its data files are missing or unsafe.
        LimitExceeded: it is larger than `DEFAULT_LIMITS` allow.
    """
    data, files = mapped(path, DEFAULT_LIMITS)
    parsed = parse(data, DEFAULT_LIMITS)
    graph = parsed.proto.graph
    weights = dict(_weights(graph, parsed.weights, External(files)))
    nested = _drop_notes(graph)
    model = onnx_ir.serde.deserialize_model(parsed.proto)
    for name, weight in weights.items():
        model.graph.initializers[name].const_value = weight
    if nested:
        set_base_dir(model.graph, path.parent)
    return model


def _weights(
    graph: onnx.GraphProto, views: Mapping[int, memoryview], external: External
) -> Iterator[tuple[str, Mapped | Private]]:
    """By name, all that is stored as raw bytes of whole elements; the proto keeps the rest."""
    tally = Tally(DEFAULT_LIMITS)
    for index, proto in enumerate(graph.initializer):
        element = ELEMENTS.get(proto.data_type)
        raw = views.get(index)
        if element is None or not element.bits:
            continue
        shape = tuple(proto.dims)
        outside = proto.data_location == onnx.TensorProto.EXTERNAL
        if outside:
            size = element.size(math.prod(shape))
            raw = external.resolve(proto, size, tally, f"initializer {proto.name}")
            proto.ClearField("external_data")
            proto.ClearField("data_location")
        if element.bits % 8:
            if raw is not None:
                proto.raw_data = bytes(raw)
            continue
        if raw is None and not proto.HasField("raw_data"):
            continue
        dtype = onnx_ir.DataType(proto.data_type)
        held = bytearray(proto.raw_data) if raw is None else raw
        stored = tensor(memoryview(held), dtype, shape, proto.name)
        if not isinstance(stored, Mapped):
            stored = Private(_own(stored.numpy()), dtype, name=proto.name)
        yield proto.name, stored


def _own(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable and array.flags.aligned else array.copy()


def _drop_notes(graph: onnx.GraphProto) -> bool:
    """Forget what running does not need and reading pays for; say whether nodes hold more tensors.

    Exporters write down a stack trace with every node. The types of values are needed where an op
    without a row may be expanded by them.
    """
    known = True
    nested = False
    for node in graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        known = known and ("" if node.domain == "ai.onnx" else node.domain, node.op_type) in ROWS
        for attribute in node.attribute:
            if attribute.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.TENSOR}:
                nested = nested or attribute.HasField("g") or bool(attribute.t.external_data)
    if known and not nested:
        del graph.value_info[:]
    return nested
