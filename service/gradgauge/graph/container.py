"""Bytes to a ModelProto: what the file is, and its large weights left where they lie."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from google.protobuf import unknown_fields  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from gradgauge.errors import InvalidModel
from gradgauge.graph.limits import Limits, hold
from gradgauge.graph.refusals import refusal

ZIP = b"PK\x03\x04"
LARGE = 1_024  # bytes from which a weight is viewed in the file instead of parsed

_MAGIC = (
    (b"PK", "a zip archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (a Keras model)"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program"),
    (b"<", "text"),
    (b"{", "JSON text"),
    (b"ORTM", "an ORT-format model"),
)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Keys on the wire: field number << 3 | wire type.
_GRAPH, _INITIALIZER, _RAW_DATA = 7 << 3 | _BYTES, 5 << 3 | _BYTES, 9 << 3 | _BYTES
_MODEL_FIELDS = {f.number for f in onnx.ModelProto.DESCRIPTOR.fields}


@dataclass(frozen=True, slots=True)
class Parsed:
    """The model and, by index among the main graph's initializers, raw data left in the file."""

    proto: onnx.ModelProto
    weights: dict[int, memoryview]


def parse(data: memoryview, limits: Limits) -> Parsed:
    """Read the protobuf; nothing of its content is trusted or checked yet.

    Weights of the main graph are not copied: they are cut out of what protobuf parses and given as
    views of `data`.

    Raises:
        InvalidModel: model_empty, model_not_onnx, model_truncated, model_damaged,
            model_trailing_data.
        LimitExceeded: model_bytes.
    """
    if not data:
        raise refusal("model_empty", "the file is empty", hint="export the model again")
    hold(limits, "model_bytes", len(data))
    rest, weights = _without_weights(data)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(rest)
    except DecodeError:
        raise _diagnose(data) from None
    if not proto.HasField("graph"):
        raise _not_onnx(data)
    if len(unknown_fields.UnknownFieldSet(proto)):
        raise refusal(
            "model_trailing_data",
            "the file holds fields that are not part of an ONNX model",
            hint="export the model again; nothing may follow it in the file",
        )
    proto.DiscardUnknownFields()
    return Parsed(proto, weights)


def _without_weights(data: memoryview) -> tuple[bytes | memoryview, dict[int, memoryview]]:
    """The bytes without the main graph's large raw_data fields, and those by initializer.

    Where the wire format is broken the bytes come back whole, for protobuf to refuse.
    """
    weights: dict[int, memoryview] = {}
    kept: list[bytes | memoryview] = []
    seen = 0
    try:
        for key, start, body, end in _fields(data, 0, len(data)):
            if key != _GRAPH:
                kept.append(data[start:end])
                continue
            graph, seen = _lean_graph(data, body, end, seen, weights)
            kept += [b"\x3a", _varint(sum(map(len, graph))), *graph]
    except _Broken:
        return data, {}
    return (b"".join(kept), weights) if weights else (data, {})


def _lean_graph(
    data: memoryview, begin: int, end: int, seen: int, weights: dict[int, memoryview]
) -> tuple[list[bytes | memoryview], int]:
    kept: list[bytes | memoryview] = []
    pending = begin  # fields from here on are kept as they are
    for key, start, body, stop in _fields(data, begin, end):
        if key != _INITIALIZER:
            continue
        if stop - body >= LARGE:
            tensor, raw = _lean_tensor(data, body, stop)
            if raw is not None:
                weights[seen] = raw
                kept += [data[pending:start], b"\x2a", _varint(len(tensor)), tensor]
                pending = stop
        seen += 1
    kept.append(data[pending:end])
    return kept, seen


def _lean_tensor(data: memoryview, begin: int, end: int) -> tuple[bytes, memoryview | None]:
    """The tensor's other fields and its raw data (the last, as protobuf reads it), if large."""
    raw: memoryview | None = None
    kept = []
    for key, start, body, stop in _fields(data, begin, end):
        if key == _RAW_DATA:
            raw = data[body:stop]
        else:
            kept.append(data[start:stop])
    return b"".join(kept), raw if raw is not None and len(raw) >= LARGE // 2 else None


class _Broken(Exception):
    """The wire format is not protobuf's, or not what a model uses; `cut` at the end of the file."""

    def __init__(self, at: int, field: int = 0, *, cut: bool = False) -> None:
        super().__init__(at)
        self.at = at
        self.field = field
        self.cut = cut


def _fields(data: memoryview, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(key, start, start of the payload, end) of each field between begin and end."""
    at = begin
    while at < end:
        start = at
        key, at = _read_varint(data, at, end)
        wire, field = key & 7, key >> 3
        if field == 0:
            raise _Broken(start)
        if wire == _BYTES:
            size, at = _read_varint(data, at, end)
            body, at = at, at + size
        elif wire == _VARINT:
            body = at
            _, at = _read_varint(data, at, end)
        elif wire in {_FIXED32, _FIXED64}:
            body, at = at, at + (4 if wire == _FIXED32 else 8)
        else:
            raise _Broken(start)
        if at > end:
            raise _Broken(start, field, cut=True)
        yield key, start, body, at


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _Broken(at, cut=True)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Broken(at)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _diagnose(data: memoryview) -> InvalidModel:
    """Which of: another format, cut short, followed by garbage, damaged within."""
    if _other_format(data) is not None or not _starts_as_onnx(data):
        return _not_onnx(data)
    seen = set()
    try:
        for key, *_ in _fields(data, 0, len(data)):
            seen.add(key)
    except _Broken as broken:
        return _broken_at(broken, len(data), whole=_GRAPH in seen)
    return refusal(
        "model_damaged",
        "the file begins as an ONNX model but is damaged inside",
        hint="upload the file again, or export it again",
    )


def _broken_at(broken: _Broken, size: int, *, whole: bool) -> InvalidModel:
    if broken.cut and broken.field in _MODEL_FIELDS:
        return refusal(
            "model_truncated",
            f"the file ends inside a field that begins at byte {broken.at:,} of {size:,}",
            hint="upload the file again, whole",
        )
    return refusal(
        "model_trailing_data" if whole else "model_damaged",
        f"from byte {broken.at:,} of {size:,} on the file is not part of an ONNX model",
        hint="export the model again; nothing may follow it in the file",
    )


def _starts_as_onnx(data: memoryview) -> bool:
    """Whether it begins with ir_version (field 1, a small number), as every exporter writes it."""
    return len(data) > 2 and data[0] == 0x08 and data[1] < 0x80 and data[2] & 7 in {_VARINT, _BYTES}


def _not_onnx(data: memoryview) -> InvalidModel:
    other = _other_format(data)
    looks = f"; it looks like {other}" if other else ""
    return refusal(
        "model_not_onnx",
        f"the file is not an ONNX model{looks}",
        hint="export to ONNX first (torch.onnx.export, tf2onnx, ...); pickles are never read",
    )


def _other_format(data: memoryview) -> str | None:
    head = bytes(data[:512])
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a Python pickle (an old torch.save file)"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < len(data):
        return "a safetensors file"
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model"
    if head[:2] == b"\x08\x01" and b"serve" in bytes(data[-(1 << 16) :]):
        return "a TensorFlow SavedModel"
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    printable = sum(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    return "text" if printable == len(head) else None
