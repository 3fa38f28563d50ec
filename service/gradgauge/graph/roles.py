"""What an integer input is for, told by its use and its name, and the law that follows from it."""

import re
from collections.abc import Iterator
from typing import Literal

import onnx_ir

from gradgauge.graph.kinds import RECURRENT

_MASK = re.compile(r"mask", re.IGNORECASE)
_POSITION = re.compile(r"(^|_)(pos|positions?)(_|$)", re.IGNORECASE)
_LENGTH = re.compile(r"(^|_)(len|lens|lengths?)(_|$)", re.IGNORECASE)
# ops that hand integers on; a vocabulary lies behind them
_PASSED_ON = frozenset(
    ["Cast", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Transpose", "Add", "Clip"]
)
Role = Literal["ones", "positions", "lengths", "integers"]


def role_of(value: onnx_ir.Value) -> Role:
    """Masks are open, positions count up, lengths are whole; everything else is drawn."""
    name = value.name or ""
    if value.dtype == onnx_ir.DataType.BOOL or _MASK.search(name):
        return "ones"
    if _measures_sequences(value) or (_LENGTH.search(name) and len(value.shape or ()) <= 1):
        return "lengths"
    return "positions" if _POSITION.search(name) and len(value.shape or ()) else "integers"


def vocabulary(value: onnx_ir.Value) -> int:
    """Rows of the smallest table this integer input indexes; 2 where it indexes none.

    Classes of a OneHot count as a table's rows.
    """
    uses = (use for v in _reached(value) for use in v.uses())
    rows = [size for use in uses if (size := _table(use.node, use.idx)) is not None]
    return min(rows, default=2)


def _table(node: onnx_ir.Node, place: int) -> int | None:
    """Rows of the table that the node looks up by its input at `place`."""
    if node.op_type in {"Gather", "EmbedLayerNormalization"} and place == 1:
        return _length(node.inputs[0], node.attributes.get_int("axis", 0))
    if node.op_type == "EmbedLayerNormalization" and place == 0:
        return _length(node.inputs[2], 0)
    if node.op_type == "OneHot" and place == 0:
        depth = node.inputs[1].const_value if node.inputs[1] is not None else None
        return int(depth.numpy().reshape(-1)[0]) if depth is not None else None
    return None


def _length(table: onnx_ir.Value | None, axis: int) -> int | None:
    shape = table.shape if table is not None else None
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) and size > 0 else None


def _measures_sequences(value: onnx_ir.Value) -> bool:
    """Whether it tells an RNN, LSTM or GRU how long its sequences are."""
    uses = (use for v in _reached(value) for use in v.uses())
    return any(use.node.op_type in RECURRENT and use.idx == 4 for use in uses)


def _reached(value: onnx_ir.Value) -> Iterator[onnx_ir.Value]:
    """The value and what it becomes on its way through ops that hand integers on."""
    todo, seen = [value], {value}
    while todo:
        v = todo.pop()
        yield v
        for use in v.uses():
            for out in use.node.outputs if use.node.op_type in _PASSED_ON else ():
                if out not in seen:
                    seen.add(out)
                    todo.append(out)
