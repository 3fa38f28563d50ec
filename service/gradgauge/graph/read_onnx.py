"""An .onnx file or a .zip of one becomes a checked Graph: parsed, validated, inlined, inferred."""

import hashlib
import mmap
import os
import stat
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
import onnx_ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from gradgauge.errors import InvalidModel
from gradgauge.graph.archive import open_archive
from gradgauge.graph.container import ZIP, parse
from gradgauge.graph.external import Files, Folder, NoFiles, hash_view
from gradgauge.graph.growth import HIDDEN, hide
from gradgauge.graph.limits import DEFAULT_LIMITS, Limits, hold
from gradgauge.graph.model import Graph
from gradgauge.graph.naming import name_nodes
from gradgauge.graph.private import map_file, tensor
from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally
from gradgauge.graph.validate import validate

_LIBRARY_ERRORS = (
    DecodeError,
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    OverflowError,
    KeyError,
)
_NAME = 200


def read_onnx(
    source: bytes | Path, *, name: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> Graph:
    """Read and check a model; nothing it says is trusted before `validate` has passed it.

    `source` is an .onnx (bytes: self-contained; a path: with its external data beside it) or a
    .zip of one .onnx and its data files. Weights stay in the file, mapped, where it is a path.
    `Graph.sha256` covers the file and the external data it refers to, `size_bytes` likewise.

    Raises:
        InvalidModel: one of refusals.CODES.
        LimitExceeded: one of Limits.
    """
    if isinstance(source, Path):
        data, files = mapped(source, limits)
        given = name or source.name
    else:
        data, files, given = memoryview(source), NoFiles(), name or ""
    return _read(data, files, given, limits)


def _read(data: memoryview, files: Files, name: str, limits: Limits) -> Graph:
    whole = data
    if data[:4] == ZIP:
        archive = open_archive(data, limits)
        data, files, name = archive.model, archive.files, name or archive.name
    parsed = parse(data, limits)
    checked = validate(parsed, files, limits)
    tally = checked.tally
    proto = _infer(_inline(parsed.proto), tally)
    model = _deserialize(proto)
    _restore(model, checked.kept)
    _settle_shapes(model)
    name_nodes(model)
    beside = sum(map(len, checked.external.opened.values())) if whole is data else 0
    digest = checked.external.digest(whole) if beside else _digest(whole)
    stem = name.removesuffix(".onnx").removesuffix(".zip") or model.graph.name or "model"
    return Graph(
        model=model,
        name=stem[:_NAME],
        format="onnx",
        sha256=digest,
        size_bytes=len(whole) + beside,
        warnings=tally.warnings(),
    )


def _digest(whole: memoryview) -> str:
    total = hashlib.sha256()
    hash_view(whole, total)
    return total.hexdigest()


def mapped(path: Path, limits: Limits) -> tuple[memoryview, Files]:
    """The file's bytes as a read-only map, and the folder its external data may lie in.

    Of an archive the map is a DataFile, as its members' are that lie in a folder.

    Raises:
        InvalidModel: model_unreadable.
        LimitExceeded: archive_bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        message = f"{shown(path.name)} cannot be opened: {fault.strerror}"
        raise refusal("model_unreadable", message) from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise refusal("model_unreadable", f"{shown(path.name)} is not a regular file")
        hold(limits, "archive_bytes", found.st_size)
        files = Folder(path.parent, (found.st_dev, found.st_ino))
        if not found.st_size:
            return memoryview(b""), files
        if os.pread(handle, len(ZIP), 0) == ZIP:
            return map_file(handle, found.st_size), files
        return memoryview(mmap.mmap(handle, found.st_size, access=mmap.ACCESS_READ)), files
    finally:
        os.close(handle)


def _inline(model: onnx.ModelProto) -> onnx.ModelProto:
    """Function calls replaced by their bodies; their cost was counted by the validator.

    Raises:
        InvalidModel: function_not_inlined.
    """
    if not model.functions:
        return model
    try:
        flat = onnx.inliner.inline_local_functions(model)
    except _LIBRARY_ERRORS:
        raise _not_inlined("the functions") from None
    if flat.functions:
        raise _not_inlined(f"the function {shown(flat.functions[0].name)}")
    return flat


def _not_inlined(what: str) -> InvalidModel:
    return refusal(
        "function_not_inlined",
        f"{what} cannot be inlined",
        hint="a function must import the operator set versions the model imports",
    )


def _infer(model: onnx.ModelProto, tally: Tally) -> onnx.ModelProto:
    """Shapes as far as ONNX can tell them; a failure is a warning, never an error."""
    hidden = hide(model.graph)
    model.opset_import.add(domain=HIDDEN, version=1)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, *_LIBRARY_ERRORS):
        tally.notice("W_SHAPES_NOT_INFERRED", model.graph.name)
        inferred = model
    del inferred.opset_import[-1]
    hidden.restore(inferred.graph)
    return inferred


def _deserialize(proto: onnx.ModelProto) -> onnx_ir.Model:
    try:
        return onnx_ir.serde.deserialize_model(proto)
    except onnx_ir.serde.SerdeError as fault:
        cause = fault
        while isinstance(cause.__cause__, onnx_ir.serde.SerdeError):
            cause = cause.__cause__
        raise refusal(
            "model_unsupported_structure",
            f"the graph could not be built: {shown(str(cause.__cause__ or cause), 200)}",
            hint="export the model again with a current exporter",
        ) from None


def _restore(model: onnx_ir.Model, kept: list[memoryview]) -> None:
    """Put the tensors that were kept apart back in, as arrays over their bytes."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            marker = value.const_value
            if isinstance(marker, onnx_ir.ExternalTensor):
                value.const_value = _tensor(marker, kept[int(str(marker.location))])


def _settle_shapes(model: onnx_ir.Model) -> None:
    """A stored tensor has its own shape, whatever was declared; no inferred axis is below zero.

    Inference believes a declared name against the tensor, and a Pad that cuts off more than there
    is; what the latter does is for the run to say.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.shape = onnx_ir.Shape(value.const_value.shape.numpy())
        for node in graph:
            for made in node.outputs:
                if made.shape is not None and any(isinstance(d, int) and d < 0 for d in made.shape):
                    made.shape = onnx_ir.Shape(
                        [None if isinstance(d, int) and d < 0 else d for d in made.shape]
                    )


def _tensor(marker: onnx_ir.ExternalTensor, data: memoryview) -> onnx_ir.TensorProtocol:
    dtype, shape = marker.dtype, marker.shape
    if dtype.bitwidth < 8:
        packed = np.frombuffer(data, np.uint8)
        return onnx_ir.PackedTensor(packed, dtype, shape=shape, name=marker.name)
    return tensor(data, dtype, shape.numpy(), marker.name)
