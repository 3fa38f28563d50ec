"""How a graph is to be read: what feeds its inputs, and whose statistics its norms use."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir

from gradgauge.errors import InvalidOptions
from gradgauge.graph.kinds import FLOATS
from gradgauge.graph.model import GraphWarning
from gradgauge.schema.options import InputOptions

SEQUENCE = 16  # a dynamic axis that is not the batch: tokens, steps
SPATIAL = 32  # a dynamic height or width of an image
_BATCH = re.compile(r"(^|_)(n|b|bs|batch\w*|unk__\d+)($|_)", re.IGNORECASE)
_MASK = re.compile(r"mask", re.IGNORECASE)
InputKind = Literal["normal", "uniform", "integers", "ones", "data"]


@dataclass(frozen=True, slots=True)
class InputPlan:
    """The law one graph input is drawn from.

    `shape` has None at the batch axis (None at most once); `batch_axis` is its position, or None
    where the graph fixes every axis. For `integers`, `low` (inclusive) and `high` (exclusive);
    for `normal` and `uniform`, `mean` and `scale` (standard deviation).
    """

    name: str
    kind: InputKind
    shape: tuple[int | None, ...]
    dtype: onnx_ir.DataType
    batch_axis: int | None
    mean: float = 0.0
    scale: float = 1.0
    low: int = 0
    high: int = 2
    data: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Both engines take the same one, so that they speak of the same network.

    `batch_statistics`: BatchNormalization normalises by the batch's own mean and variance.
    `target` is the user's target array, if `data` held one. `warnings` are (code, message).
    """

    inputs: Mapping[str, InputPlan]
    batch_statistics: bool
    target: np.ndarray | None = None
    warnings: tuple[GraphWarning, ...] = ()


def read(
    model: onnx_ir.Model,
    *,
    asked: Mapping[str, InputOptions] | None = None,
    norm_mode: Literal["auto", "train", "eval"] = "auto",
    data: Path | None = None,
) -> Reading:
    """Decide every input's law and the norms' statistics.

    Raises:
        InvalidOptions: an option or a data array names no graph input, or does not fit one.
    """
    asked = asked or {}
    values = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    names = [v.name or "" for v in values]
    _refuse_unknown(asked, names)
    arrays, target, notes = _load(data, names)
    batch = _batch_symbol(values)
    plans = {
        name: _plan(value, batch, asked.get(name), arrays.get(name))
        for name, value in zip(names, values, strict=True)
    }
    statistics, norm_notes = _norms(model, norm_mode)
    if any(p.kind in {"normal", "uniform"} for p in plans.values()):
        notes.append(
            GraphWarning(
                "W_SYNTHETIC_INPUT",
                "float inputs drawn from a standard law; the scale of real data matters: "
                "pass a batch with --data for data-dependent results",
            )
        )
    return Reading(plans, statistics, target, tuple(notes + norm_notes))


def _refuse_unknown(asked: Mapping[str, InputOptions], names: list[str]) -> None:
    for name in asked:
        if name not in names:
            raise InvalidOptions(
                "unknown_input",
                f"options name an input {name!r} that the graph does not have",
                where=f"inputs.{name}",
                hint=f"graph inputs: {', '.join(names)}",
            )


def _load(
    data: Path | None, names: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray | None, list[GraphWarning]]:
    """Arrays named as graph inputs, the target, and a warning for every other array."""
    if data is None:
        return {}, None, []
    try:
        with np.load(data, allow_pickle=False) as held:
            arrays = {key: held[key] for key in held.files}
    except (OSError, ValueError, EOFError) as fault:
        raise InvalidOptions(
            "invalid_data",
            f"{data.name} is not a readable .npz file",
            where="data",
            hint="save it with numpy.savez(path, **{input_name: array, 'target': array})",
        ) from fault
    target = next((arrays.pop(k) for k in ("target", "y") if k in arrays and k not in names), None)
    notes = [
        GraphWarning(
            "W_UNUSED_ARRAY",
            f"array {key!r} in the data file names no graph input and is ignored",
        )
        for key in arrays
        if key not in names
    ]
    used = {k: v for k, v in arrays.items() if k in names}
    if not used:
        raise InvalidOptions(
            "invalid_data",
            f"{data.name} holds no array named as a graph input",
            where="data",
            hint=f"name arrays as the graph's inputs: {', '.join(names)}",
        )
    return used, target, notes


def _batch_symbol(values: list[onnx_ir.Value]) -> str | None:
    """The symbolic dimension that stands for the batch: by name, else the commonest leading one."""
    symbols = [d.value for v in values for d in (v.shape or ()) if not isinstance(d, int)]
    named = [s for s in symbols if s and _BATCH.search(s)]
    if named:
        return Counter(named).most_common(1)[0][0]
    leading = [v.shape[0].value for v in values if v.shape and not isinstance(v.shape[0], int)]
    if leading:
        return Counter(leading).most_common(1)[0][0]
    return symbols[0] if symbols else None


def _plan(
    value: onnx_ir.Value,
    batch: str | None,
    asked: InputOptions | None,
    data: np.ndarray | None,
) -> InputPlan:
    name = value.name or ""
    dtype = value.dtype or onnx_ir.DataType.FLOAT
    shape, axis = _resolve(value, batch, asked)
    if data is not None:
        _check_data(name, data, shape)
        return InputPlan(name, "data", shape, dtype, axis, data=data)
    if dtype in FLOATS:
        return _float_plan(value, shape, axis, asked)
    if dtype == onnx_ir.DataType.BOOL or _MASK.search(name):
        return InputPlan(name, "ones", shape, dtype, axis)
    return InputPlan(name, "integers", shape, dtype, axis, high=_vocabulary(value))


def _float_plan(
    value: onnx_ir.Value,
    shape: tuple[int | None, ...],
    axis: int | None,
    asked: InputOptions | None,
) -> InputPlan:
    """The options' law, else the spec's (kept in the input's metadata), else N(0, 1)."""
    held = value.metadata_props
    wanted = (asked.distribution if asked is not None else None) or held.get(
        "gradgauge.distribution", "normal"
    )
    mean = float(held.get("gradgauge.mean", 0.0))
    scale = float(held.get("gradgauge.scale", 1.0))
    if wanted == "uniform" and "gradgauge.low" in held:
        low, high = float(held["gradgauge.low"]), float(held["gradgauge.high"])
        mean, scale = (low + high) / 2, (high - low) / math.sqrt(12.0)
    if asked is not None and asked.scale is not None:
        scale = asked.scale
    kind: InputKind = "uniform" if wanted == "uniform" else "normal"
    dtype = value.dtype or onnx_ir.DataType.FLOAT
    return InputPlan(value.name or "", kind, shape, dtype, axis, mean=mean, scale=scale)


def _resolve(
    value: onnx_ir.Value, batch: str | None, asked: InputOptions | None
) -> tuple[tuple[int | None, ...], int | None]:
    """Concrete sizes, None at the batch axis; where no axis is dynamic there is no batch axis."""
    if value.shape is None:
        raise InvalidOptions(
            "unknown_shape",
            f"graph input {value.name!r} has no shape",
            where=f"inputs.{value.name}",
            hint="export the model with shapes on its inputs",
        )
    given = list(asked.shape) if asked is not None and asked.shape is not None else None
    dims: list[int | None] = []
    axis: int | None = None
    for i, dim in enumerate(value.shape):
        if isinstance(dim, int):
            dims.append(dim)
        elif axis is None and dim.value == batch and (batch is not None or i == 0):
            axis = i
            dims.append(None)
        else:
            dims.append(SPATIAL if len(value.shape) >= 4 and i >= 2 else SEQUENCE)
    if given is not None:
        dims = _with_given(value, dims, given, axis)
    return tuple(dims), axis


def _with_given(
    value: onnx_ir.Value, dims: list[int | None], given: list[int], axis: int | None
) -> list[int | None]:
    """The user's sizes; they may leave out the batch axis."""
    if axis is not None and len(given) == len(dims) - 1:
        given = [*given[:axis], 0, *given[axis:]]
    fixed = list(value.shape or ())
    fits = len(given) == len(dims) and all(
        not isinstance(f, int) or f == g for f, g in zip(fixed, given, strict=False)
    )
    if not fits:
        raise InvalidOptions(
            "shape_mismatch",
            f"shape {given} does not fit graph input {value.name!r} of shape {fixed}",
            where=f"inputs.{value.name}.shape",
            hint="give one size per axis; only dynamic axes may differ",
        )
    return [None if i == axis else g for i, g in enumerate(given)]


def _check_data(name: str, data: np.ndarray, shape: tuple[int | None, ...]) -> None:
    if data.ndim != len(shape):
        raise InvalidOptions(
            "shape_mismatch",
            f"array {name!r} has {data.ndim} axes, the graph input has {len(shape)}",
            where=f"data.{name}",
            hint=f"expected axes {tuple('batch' if d is None else d for d in shape)}",
        )


def _vocabulary(value: onnx_ir.Value) -> int:
    """Rows of the embedding table this integer input indexes; 2 where it indexes none."""
    todo, seen = [value], set()
    while todo:
        v = todo.pop()
        for use in v.uses():
            node = use.node
            if node.op_type in {"Gather", "EmbedLayerNormalization"} and use.idx == 1:
                table = node.inputs[0]
                if (
                    table is not None
                    and table.shape is not None
                    and isinstance(table.shape[0], int)
                ):
                    return table.shape[0]
            if node.op_type in {"Cast", "Reshape", "Squeeze", "Unsqueeze", "Identity"}:
                out = node.outputs[0]
                if out not in seen:
                    seen.add(out)
                    todo.append(out)
    return 2


def _norms(
    model: onnx_ir.Model, mode: Literal["auto", "train", "eval"]
) -> tuple[bool, list[GraphWarning]]:
    """Whether BatchNormalization reads the batch's own statistics, and a word on why."""
    held = [n for n in model.graph if n.op_type == "BatchNormalization"]
    if not held or mode == "eval":
        return False, []
    if mode == "train":
        return True, []
    if all(_untrained(node) for node in held):
        return True, [
            GraphWarning(
                "W_UNTRAINED_BATCHNORM",
                f"the running statistics of all {len(held)} BatchNormalization nodes are (0, 1): "
                "as exported they are the identity, so batch statistics are used instead; "
                "norm_mode: eval reads them as exported",
            )
        ]
    return False, []


def _untrained(node: onnx_ir.Node) -> bool:
    for index, still in ((3, 0.0), (4, 1.0)):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is None or value.const_value is None:
            return False
        if not np.array_equal(
            value.const_value.numpy().astype(np.float64),
            np.full(tuple(value.const_value.shape), still),
        ):
            return False
    return True
