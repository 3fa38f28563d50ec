"""Every TensorProto: type, shape and data agree, in one field, within the limits."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx

from gradgauge.graph.container import LARGE
from gradgauge.graph.elements import BOOL, DATA_FIELDS, ELEMENTS, STRING, Element
from gradgauge.graph.external import External
from gradgauge.graph.names import check_metadata, check_name, check_text
from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally


@dataclass(slots=True)
class Tensors:
    """Checks tensors and keeps the large ones apart from the protobuf.

    A kept tensor is left in the model as an external one whose location is its index in `kept`:
    libraries then move a few bytes where they would copy gigabytes, and read no file.
    """

    tally: Tally
    external: External
    kept: list[memoryview] = field(default_factory=list)

    def initializer(
        self, tensor: onnx.TensorProto, where: str, view: memoryview | None = None
    ) -> memoryview | None:
        """Check an initializer, whose raw data may have been left in the file as `view`.

        Returns its data as little-endian packed bytes (None for strings).

        Raises:
            InvalidModel: text_not_utf8, and the tensor_ and external_data_ codes.
            LimitExceeded: rank, tensor_bytes, total_tensor_bytes, external ones.
        """
        data = self._data(tensor, where, view)
        if data is not None:
            if len(data) >= LARGE:
                self._keep(tensor, data)
            else:
                _inline(tensor, data)
        return data

    def constant(self, tensor: onnx.TensorProto, where: str) -> memoryview | None:
        """Check a tensor in an attribute; external data is brought inside. As `initializer`."""
        data = self._data(tensor, where, None)
        self.tally.count("constant_bytes", len(data) if data is not None else 0, where)
        if data is not None:
            _inline(tensor, data)
        return data

    def _keep(self, tensor: onnx.TensorProto, data: memoryview) -> None:
        for name in (*DATA_FIELDS, "raw_data", "external_data"):
            tensor.ClearField(name)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=str(len(self.kept)))
        self.kept.append(data)

    def _data(
        self, tensor: onnx.TensorProto, where: str, view: memoryview | None
    ) -> memoryview | None:
        check_name(tensor.name, self.tally, where)
        check_text(tensor, ("doc_string",), self.tally, where)
        check_metadata(tensor.metadata_props, self.tally, where)
        place = f"{where} {shown(tensor.name)}" if tensor.name else where
        element = ELEMENTS.get(tensor.data_type)
        if element is None:
            message = f"element type {tensor.data_type} is undefined or unknown"
            raise refusal("tensor_type_unknown", message, where=place)
        count = element_count(tensor.dims, self.tally, place)
        size = element.size(count)
        source = _source(tensor, place, inside=view is not None)
        if source == "external":
            self.tally.hold("tensor_bytes", size, place)
            self.tally.count("total_tensor_bytes", size, place)
            return self.external.resolve(tensor, size, self.tally, place)
        if tensor.data_type == STRING:
            _check_strings(tensor, count, source, self.tally, place)
            return None
        data = view if view is not None else _bytes(tensor, element, count, source, place)
        if len(data) != size:
            raise _mismatch(len(data), size, tensor.dims, "bytes", place)
        self.tally.hold("tensor_bytes", size, place)
        self.tally.count("total_tensor_bytes", size, place)
        if tensor.data_type == BOOL and np.frombuffer(data, "u1").max(initial=0) > 1:
            raise refusal("tensor_value_range", "a BOOL is neither 0 nor 1", where=place)
        return data


def element_count(dims: Iterable[int], tally: Tally, where: str) -> int:
    """The product of `dims` in Python's integers; raises InvalidModel on a negative axis."""
    sizes = list(dims)
    tally.hold("rank", len(sizes), where)
    if any(d < 0 for d in sizes):
        message = f"its shape {sizes} has a negative axis"
        raise refusal("tensor_shape_invalid", message, where=where)
    return math.prod(sizes)


def _source(tensor: onnx.TensorProto, where: str, *, inside: bool) -> str:
    """Which one of the data fields is used: its name, `raw_data` or `external`."""
    used = [name for name in DATA_FIELDS if len(getattr(tensor, name))]
    if inside or tensor.HasField("raw_data"):
        used.append("raw_data")
    is_external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if is_external or tensor.external_data:
        used.append("external")
    wrong = tensor.data_type == STRING and used not in ([], ["string_data"])
    if len(used) > 1 or tensor.HasField("segment") or wrong or is_external != ("external" in used):
        raise refusal(
            "tensor_fields_mixed",
            f"its data is in {' and '.join(used) or 'a segment'}",
            where=where,
            hint="one of raw_data, the type's own field, or external data",
        )
    return used[0] if used else ELEMENTS[tensor.data_type].field


def _bytes(
    tensor: onnx.TensorProto, element: Element, count: int, source: str, where: str
) -> memoryview:
    """The data as raw bytes, whichever field held it."""
    if source == "raw_data":
        return memoryview(tensor.raw_data)
    if source != element.field:
        raise refusal(
            "tensor_fields_mixed",
            f"its data is in {source}; {element.name} is kept in {element.field} or raw_data",
            where=where,
        )
    entries = getattr(tensor, source)
    if len(entries) != element.entries(count):
        raise _mismatch(len(entries), element.entries(count), tensor.dims, "entries", where)
    return _pack(entries, element, where)


def _pack(entries: object, element: Element, where: str) -> memoryview:
    wide = {"uint64_data": np.uint64, "int64_data": np.int64, "int32_data": np.int64}
    values = np.array(entries, dtype=wide.get(element.field, np.dtype(element.wire or "u1")))
    low, high = element.low, element.high
    if values.size and low is not None and high is not None:
        least, most = int(values.min()), int(values.max())
        if least < low or most > high:
            message = f"a value is outside {low} to {high}, the range of {element.name}"
            raise refusal("tensor_value_range", message, where=where)
    if element.bits == 6:
        return memoryview(_pack_six(values.astype(np.uint8)))
    return memoryview(values.astype(element.wire).tobytes())


def _pack_six(values: npt.NDArray[np.uint8]) -> bytes:
    """Elements of 6 bits as one little-endian stream of bits."""
    bits = np.unpackbits(values[:, None], axis=1, bitorder="little")[:, :6]
    return np.packbits(bits.ravel(), bitorder="little").tobytes()


def _inline(tensor: onnx.TensorProto, data: memoryview) -> None:
    if tensor.HasField("raw_data"):
        return
    for name in (*DATA_FIELDS, "external_data", "data_location"):
        tensor.ClearField(name)
    tensor.raw_data = bytes(data)


def _check_strings(
    tensor: onnx.TensorProto, count: int, source: str, tally: Tally, where: str
) -> None:
    held = len(tensor.string_data)
    if source != "string_data" or held != count:
        raise _mismatch(held, count, tensor.dims, "strings", where)
    total = 0
    for text in tensor.string_data:
        total += len(text)
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            raise refusal("text_not_utf8", "one of its strings is not UTF-8", where=where) from None
    tally.count("total_tensor_bytes", total, where)


def _mismatch(held: int, needed: int, dims: Iterable[int], unit: str, where: str) -> Exception:
    shape = shown(str(list(dims)), 60).strip("'")
    figure = f"{needed:,}" if needed < 10**15 else "over 10^15"
    return refusal(
        "tensor_size_mismatch",
        f"it holds {held:,} {unit}, its shape {shape} needs {figure}",
        where=where,
        hint="export the model again; the file may have been edited or damaged",
    )
