"""Sparse tensors: checked against their dense shape, then written out dense."""

from collections.abc import Iterator

import numpy as np
import onnx

from gradgauge.graph.elements import ELEMENTS, INT64, STRING
from gradgauge.graph.external import External, NoFiles
from gradgauge.graph.limits import DEFAULT_LIMITS
from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally
from gradgauge.graph.validate_tensors import Tensors, element_count


def dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose sparse initializers are dense; the model itself where it has none.

    Raises:
        InvalidModel, LimitExceeded: as `densify`, within the default limits.
    """
    if not any(graph.sparse_initializer for graph in _graphs(model.graph)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = Tensors(Tally(DEFAULT_LIMITS), External(NoFiles()))
    for graph in _graphs(copy.graph):
        for sparse in graph.sparse_initializer:
            graph.initializer.append(densify(sparse, tensors, "sparse initializer"))
        del graph.sparse_initializer[:]
    return copy


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def densify(sparse: onnx.SparseTensorProto, tensors: Tensors, where: str) -> onnx.TensorProto:
    """The dense tensor a checked sparse one stands for (onnx.proto3, SparseTensorProto).

    Raises:
        InvalidModel: sparse_invalid, external_data_unsafe (sparse data is never external), and
            what `Tensors.constant` raises.
        LimitExceeded: densified_bytes.
    """
    values, indices = sparse.values, sparse.indices
    place = f"{where} {shown(values.name)}"
    _check_inside(sparse, place)
    if values.data_type == STRING or ELEMENTS.get(values.data_type, ELEMENTS[1]).bits < 8:
        raise refusal("sparse_invalid", "its element type has no sparse form", where=place)
    data = tensors.constant(values, place)
    where_to = tensors.constant(indices, f"{place}, indices")
    dims = list(sparse.dims)
    count = element_count(dims, tensors.tally, place)
    element = ELEMENTS[values.data_type]
    tensors.tally.count("densified_bytes", element.size(count), place)
    if indices.data_type != INT64 or len(values.dims) != 1 or data is None or where_to is None:
        raise refusal("sparse_invalid", "values must be 1-D, indices INT64", where=place)
    flat = _flat(np.frombuffer(where_to, "<i8"), list(indices.dims), values.dims[0], dims, place)
    width = element.bits // 8
    dense = np.zeros((count, width), np.uint8)
    dense[flat] = np.frombuffer(data, np.uint8).reshape(-1, width)
    tensors.tally.notice("W_SPARSE_DENSIFIED", values.name)
    return onnx.TensorProto(
        name=values.name, data_type=values.data_type, dims=dims, raw_data=dense.tobytes()
    )


def _check_inside(sparse: onnx.SparseTensorProto, where: str) -> None:
    for part in (sparse.values, sparse.indices):
        if part.data_location == onnx.TensorProto.EXTERNAL or part.external_data:
            message = "a sparse tensor's data must be inside the model"
            raise refusal("external_data_unsafe", message, where=where)


def _flat(
    indices: np.ndarray, shape: list[int], count: int, dims: list[int], where: str
) -> np.ndarray:
    """Linear indices, strictly increasing and inside `dims`."""
    if shape == [count, len(dims)]:
        rows = indices.reshape(count, len(dims))
        outside = bool(((rows < 0) | (rows >= np.array(dims, np.int64))).any())
        strides = np.cumprod([1, *dims[:0:-1]])[::-1].astype(np.int64)
        flat = rows @ strides if dims else np.zeros(count, np.int64)
    elif shape == [count]:
        flat = indices
        outside = bool(((flat < 0) | (flat >= int(np.prod(dims, dtype=object)))).any())
    else:
        message = f"indices of shape {shape} do not fit {count} values in {len(dims)} axes"
        raise refusal("sparse_invalid", message, where=where)
    if outside:
        raise refusal("sparse_invalid", f"an index lies outside the shape {dims}", where=where)
    if (np.diff(flat) <= 0).any():
        raise refusal("sparse_invalid", "its indices are not strictly increasing", where=where)
    return np.asarray(flat)
