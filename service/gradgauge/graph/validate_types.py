"""Declared types: what a graph input, an output or a value may say it is."""

import math
from typing import Any

import onnx

from gradgauge.graph.elements import ELEMENTS
from gradgauge.graph.names import check_metadata, check_name, check_text
from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally

_DEEPEST = 8  # sequences of optionals of maps ...
_MOST = (1 << 63) - 1


def check_value_info(info: onnx.ValueInfoProto, tally: Tally, where: str) -> int:
    """Check one declared value; its size in bytes, symbolic axes taken as 1, 0 where unknown.

    Raises:
        InvalidModel: type_invalid, type_unsupported, shape_invalid, text_not_utf8.
        LimitExceeded: rank, name_bytes, metadata_entries.
    """
    check_name(info.name, tally, where)
    check_text(info, ("doc_string",), tally, where)
    check_metadata(info.metadata_props, tally, where)
    place = f"{where} {shown(info.name)}"
    return check_type(info.type, tally, place) if info.HasField("type") else 0


def check_type(given: onnx.TypeProto, tally: Tally, where: str, depth: int = 0) -> int:
    """As `check_value_info`, for a type alone."""
    check_text(given, ("denotation",), tally, where)
    kind = given.WhichOneof("value")
    if depth > _DEEPEST:
        raise refusal("type_invalid", f"types are nested more than {_DEEPEST} deep", where=where)
    if kind in {"tensor_type", "sparse_tensor_type"}:
        return _tensor(getattr(given, kind), tally, where)
    if kind in {"sequence_type", "optional_type"}:
        return check_type(getattr(given, kind).elem_type, tally, where, depth + 1)
    if kind == "map_type":
        message = "its type is a map, as classic machine learning uses: no gradient passes it"
        raise refusal("type_unsupported", message, where=where)
    raise refusal("type_invalid", f"its type is of the kind {kind or 'none'}", where=where)


def _tensor(given: Any, tally: Tally, where: str) -> int:
    if given.elem_type not in ELEMENTS:
        raise refusal("type_invalid", f"element type {given.elem_type} is unknown", where=where)
    if not given.HasField("shape"):
        return 0
    dims = [_size(d, tally, where) for d in given.shape.dim]
    tally.hold("rank", len(dims), where)
    count = math.prod(dims)
    if count > _MOST:
        raise refusal("shape_invalid", "its shape has more than 2^63 - 1 elements", where=where)
    return count * ELEMENTS[given.elem_type].bits // 8


def _size(dim: Any, tally: Tally, where: str) -> int:
    """A symbolic axis counts as 1."""
    check_text(dim, ("denotation",), tally, where)
    if not dim.HasField("dim_value"):
        check_name(dim.dim_param, tally, where)
        return 1
    if dim.dim_value < 0:
        raise refusal("shape_invalid", f"an axis has the size {dim.dim_value}", where=where)
    return int(dim.dim_value)
