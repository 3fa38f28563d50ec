"""How a graph is to be read: what feeds its inputs, and whose statistics its norms use."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir

from gradgauge.errors import AnalysisFailed, InvalidOptions
from gradgauge.graph import arrays
from gradgauge.graph.kinds import FLOATS, INTEGERS, RECURRENT
from gradgauge.graph.model import GraphWarning
from gradgauge.graph.roles import role_of, vocabulary
from gradgauge.schema.options import InputOptions

SEQUENCE = 16  # a dynamic axis that is not the batch: tokens, steps
SCALES = (1e-2, 1e2)  # root mean squares of data within which no word is said
SPATIAL = 32  # a dynamic height or width of an image
_BATCH = re.compile(r"(^|_)(n|b|bs|batch\w*|unk__\d+)($|_)", re.IGNORECASE)
# names of a dynamic axis along one input
_ALONG = re.compile(r"seq|len|time|step|tok|frame|height|width|(^|_)[hwlt]($|_)", re.IGNORECASE)
InputKind = Literal["normal", "uniform", "integers", "ones", "positions", "lengths", "data"]


@dataclass(frozen=True, slots=True)
class InputPlan:
    """The law one graph input is drawn from.

    `shape` has None at the batch axis (None at most once); `batch_axis` is its position, or None
    where the graph fixes every axis: `fixed_axis` then holds as many inputs as it takes at once.
    For `integers`, `low` (inclusive) and `high` (exclusive); `positions` count up below `high`,
    `lengths` all are `high`; for `normal` and `uniform`, `mean` and `scale` (standard deviation).
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
    fixed_axis: int = 0

    @property
    def row_axis(self) -> int:
        """The axis that tells inputs apart, whether or not the graph fixes its length."""
        return self.fixed_axis if self.batch_axis is None else self.batch_axis

    def constant(self, sizes: Sequence[int]) -> np.ndarray | None:
        """What a mask, positions or lengths hold; None where the input is drawn."""
        dtype = self.dtype.numpy()
        if self.kind == "ones":
            return np.ones(sizes, dtype)
        if self.kind == "lengths":
            return np.full(sizes, self.high, dtype)
        if self.kind == "positions":
            counted = np.arange(sizes[-1]) % self.high
            return np.broadcast_to(counted, sizes).astype(dtype)
        return None


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
        AnalysisFailed: a graph input holds neither numbers nor truth values.
    """
    asked = asked or {}
    values = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    names = [v.name or "" for v in values]
    _refuse_unknown(asked, names)
    fed, target, notes = arrays.load(data, names)
    batch = _batch_symbol(values)
    sizes = _sizes(values, batch, asked, fed)
    plans = {
        name: _plan(value, batch, sizes, asked.get(name), fed.get(name))
        for name, value in zip(names, values, strict=True)
    }
    plans = _with_lengths(plans)
    rows = {n: a.shape[plans[n].row_axis] for n, a in fed.items() if a.ndim}
    arrays.check_rows(rows, target)
    statistics, norm_notes = _norms(model, norm_mode)
    notes += _scale_notes(plans)
    return Reading(plans, statistics, target, tuple(notes + norm_notes))


def _scale_notes(plans: Mapping[str, InputPlan]) -> list[GraphWarning]:
    """A word on the inputs' scale: assumed where they are drawn, measured where data came."""
    notes = []
    if any(p.kind in {"normal", "uniform"} for p in plans.values()):
        notes.append(
            GraphWarning(
                "W_SYNTHETIC_INPUT",
                "float inputs drawn from a standard law; the scale of real data matters: "
                "pass a batch with --data for data-dependent results",
            )
        )
    for name, plan in plans.items():
        if plan.data is None or plan.dtype not in FLOATS:
            continue
        size = arrays.root_mean_square(plan.data)
        if not SCALES[0] <= size <= SCALES[1]:
            notes.append(
                GraphWarning(
                    "W_INPUT_SCALE",
                    f"the data for {name!r} have a root mean square of {size:.3g}; networks are "
                    "initialised for inputs of about 1: normalise them",
                )
            )
    return notes


def _refuse_unknown(asked: Mapping[str, InputOptions], names: list[str]) -> None:
    for name in asked:
        if name not in names:
            raise InvalidOptions(
                "unknown_input",
                f"options name an input {name!r} that the graph does not have",
                where=f"inputs.{name}",
                hint=f"graph inputs: {', '.join(names)}",
            )


def _batch_symbol(values: list[onnx_ir.Value]) -> str | None:
    """The symbolic dimension that stands for the batch: by name, else the commonest leading one.

    Names of sequences and sizes are none, nor is a later axis behind a leading one of size 1.
    """
    shapes = [list(v.shape or ()) for v in values]
    symbols = [d.value for shape in shapes for d in shape if not isinstance(d, int)]
    named = [s for s in symbols if s and _BATCH.search(s)]
    if named:
        return Counter(named).most_common(1)[0][0]
    leading = [s[0].value for s in shapes if s and not isinstance(s[0], int)]
    leading = [name for name in leading if not (name and _ALONG.search(name))]
    if leading:
        return Counter(leading).most_common(1)[0][0]
    later = (d.value for s in shapes if s[:1] != [1] for d in s[1:] if not isinstance(d, int))
    return next((name for name in later if name and not _ALONG.search(name)), None)


def _sizes(
    values: list[onnx_ir.Value],
    batch: str | None,
    asked: Mapping[str, InputOptions],
    fed: Mapping[str, np.ndarray],
) -> dict[str, int]:
    """Sizes of symbols that are not the batch, from the user's arrays, else from asked shapes.

    One input's sequence length is then every input's that shares its symbol.
    """
    found: dict[str, int] = {}
    for held in (fed, {k: o.shape for k, o in asked.items() if o.shape is not None}):
        for value in values:
            given = held.get(value.name or "")
            dims = list(value.shape or ())
            shape = tuple(given.shape if isinstance(given, np.ndarray) else given or ())
            if len(shape) == len(dims) - 1 and batch is not None:
                dims = [d for d in dims if isinstance(d, int) or d.value != batch]
            for d, size in zip(dims, shape, strict=False):
                if not isinstance(d, int) and d.value and d.value != batch:
                    found.setdefault(d.value, size)
    return found


def _plan(
    value: onnx_ir.Value,
    batch: str | None,
    sizes: Mapping[str, int],
    asked: InputOptions | None,
    data: np.ndarray | None,
) -> InputPlan:
    name = value.name or ""
    dtype = value.dtype or onnx_ir.DataType.FLOAT
    _refuse_type(value, dtype, asked)
    shape, axis = _resolve(value, batch, sizes, asked)
    if data is not None:
        plan = InputPlan(name, "data", shape, dtype, axis, data=data)
    elif dtype in FLOATS:
        plan = _float_plan(value, shape, axis, asked)
    else:
        plan = _integer_plan(value, shape, axis)
    if any(use.node.op_type in RECURRENT and use.idx == 0 for use in value.uses()):
        plan = replace(plan, fixed_axis=1)  # (time, batch, features)
    if data is None:
        return plan
    arrays.check(value, data, plan.row_axis)
    own = tuple(None if i == axis else size for i, size in enumerate(data.shape))
    return plan if axis is None else replace(plan, shape=own)


def _integer_plan(
    value: onnx_ir.Value, shape: tuple[int | None, ...], axis: int | None
) -> InputPlan:
    """A spec's own law, else what the input's role asks for.

    Token ids are indices of the tables the input is looked up in.
    """
    name, dtype = value.name or "", value.dtype or onnx_ir.DataType.INT64
    low, high = _number(value, "low"), _number(value, "high")
    if low is not None and high is not None and -(1 << 31) <= low < high < 1 << 31:
        return InputPlan(name, "integers", shape, dtype, axis, low=int(low), high=int(high))
    role = role_of(value)
    high = vocabulary(value) if role in {"integers", "positions"} else 2
    return InputPlan(name, role, shape, dtype, axis, high=int(high))


def _with_lengths(plans: dict[str, InputPlan]) -> dict[str, InputPlan]:
    """Sequences are as long as the longest axis that counts neither inputs nor features."""
    steps = [
        size
        for plan in plans.values()
        if plan.kind != "lengths" and len(plan.shape) in {2, 3}
        for i, size in enumerate(plan.shape[: 2 if len(plan.shape) == 3 else None])
        if i != plan.row_axis and size is not None
    ]
    whole = max(steps, default=SEQUENCE)
    return {
        name: replace(plan, high=whole) if plan.kind == "lengths" else plan
        for name, plan in plans.items()
    }


def _refuse_type(value: onnx_ir.Value, dtype: onnx_ir.DataType, asked: InputOptions | None) -> None:
    name = value.name or ""
    if value.type is not None and not isinstance(value.type, onnx_ir.TensorType):
        raise AnalysisFailed(
            "input_type",
            f"graph input {name!r} is no tensor but {type(value.type).__name__}",
            where=f"inputs.{name}",
            hint="export the model from where its inputs are tensors",
        )
    if dtype not in FLOATS and dtype not in INTEGERS and dtype != onnx_ir.DataType.BOOL:
        raise AnalysisFailed(
            "input_type",
            f"graph input {name!r} holds {dtype.name}, of which no input can be drawn",
            where=f"inputs.{name}",
            hint="export the model from where its inputs are numbers",
        )
    wanted = asked.distribution if asked is not None else None
    if wanted is not None and (wanted == "integers") is (dtype in FLOATS):
        raise InvalidOptions(
            "distribution_mismatch",
            f"distribution {wanted!r} does not fit graph input {name!r} of type {dtype.name}",
            where=f"inputs.{name}.distribution",
            hint="normal or uniform for floats, integers for the rest",
        )


def _float_plan(
    value: onnx_ir.Value,
    shape: tuple[int | None, ...],
    axis: int | None,
    asked: InputOptions | None,
) -> InputPlan:
    """The options' law, else the spec's (kept in the input's metadata), else N(0, 1)."""
    law = value.metadata_props.get("gradgauge.distribution", "normal")
    wanted = (asked.distribution if asked is not None else None) or law
    mean, scale = _number(value, "mean") or 0.0, _number(value, "scale") or 1.0
    if asked is not None and asked.scale is not None:
        scale = asked.scale
    kind: InputKind = "uniform" if wanted == "uniform" else "normal"
    dtype = value.dtype or onnx_ir.DataType.FLOAT
    return InputPlan(value.name or "", kind, shape, dtype, axis, mean=mean, scale=scale)


def _number(value: onnx_ir.Value, key: str) -> float | None:
    """A finite number in an input's metadata, where an upload may have written anything."""
    try:
        found = float(value.metadata_props.get(f"gradgauge.{key}", "nan"))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _resolve(
    value: onnx_ir.Value, batch: str | None, sizes: Mapping[str, int], asked: InputOptions | None
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
            default = SPATIAL if len(value.shape) >= 4 and i >= 2 else SEQUENCE
            dims.append(sizes.get(dim.value or "", default))
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
        if any(_is_single(node) for node in held):
            return False, [
                GraphWarning(
                    "W_SINGLE_SAMPLE_BATCHNORM",
                    "a BatchNormalization node sees one value per channel (the graph fixes its "
                    "batch to 1), so it is read as exported; export with a dynamic batch axis",
                )
            ]
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
    pairs = zip(map(_stored, node.inputs[3:5]), (0.0, 1.0), strict=False)
    return sum(x is not None and bool((x == still).all()) for x, still in pairs) == 2


def _stored(value: onnx_ir.Value | None) -> np.ndarray | None:
    """What a value holds; exporters store equal tensors once and pass them on by Identity."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Identity":
        return _stored(node.inputs[0])
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _is_single(node: onnx_ir.Node) -> bool:
    """Whether the graph fixes the node's input to one value per channel: no variance to measure."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None or len(shape) < 2:
        return False
    return all(d == 1 for i, d in enumerate(shape) if i != 1)
