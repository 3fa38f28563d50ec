"""The user's arrays: read from their file and held against the graph's inputs."""

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir

from gradgauge.errors import InvalidOptions
from gradgauge.graph.kinds import FLOATS
from gradgauge.graph.model import GraphWarning

# what numpy raises on a file that is none of its own, or a damaged one
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError)


def load(
    data: Path | None, names: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray | None, list[GraphWarning]]:
    """Arrays named as graph inputs, the target, and a warning for every other array.

    Raises:
        InvalidOptions: the file is no .npz file, or holds nothing the graph takes.
    """
    if data is None:
        return {}, None, []
    try:
        with data.open("rb") as file, np.load(file, allow_pickle=False) as held:
            arrays = {key: held[key] for key in held.files}
    except (*_UNREADABLE, zipfile.BadZipFile, zlib.error) as fault:
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


def root_mean_square(data: np.ndarray) -> float:
    """Of an array of any number type; squares that overflow are avoided."""
    held = data.astype(np.float64)
    top = float(np.abs(held).max(initial=0.0))
    if not 0.0 < top < math.inf:
        return top
    return top * float(np.sqrt(np.mean(np.square(held / top))))


def check(value: onnx_ir.Value, data: np.ndarray, axis: int) -> None:
    """Numbers of the input's kind, in its shape; the axis that counts inputs is free.

    Raises:
        InvalidOptions: the array is none.
    """
    wanted: Sequence[int | onnx_ir.SymbolicDim] = list(value.shape or ())
    fits = data.ndim == len(wanted) and all(
        size > 0 and (i == axis or not isinstance(d, int) or d == size)
        for i, (d, size) in enumerate(zip(wanted, data.shape, strict=True))
    )
    if not fits:
        sizes = ", ".join(str(d) if isinstance(d, int) else d.value or "?" for d in wanted)
        raise InvalidOptions(
            "shape_mismatch",
            f"array {value.name!r} has shape {data.shape}, the graph input ({sizes})",
            where=f"data.{value.name}",
            hint="give the graph input's own sizes, and at least one row",
        )
    kinds = "fiub" if value.dtype in FLOATS else "iub"
    if data.dtype.kind not in kinds:
        raise InvalidOptions(
            "type_mismatch",
            f"array {value.name!r} holds {data.dtype}, the graph input {value.dtype!s}",
            where=f"data.{value.name}",
            hint="save numbers of the graph input's own kind",
        )


def check_rows(rows: Mapping[str, int], target: np.ndarray | None) -> None:
    """Arrays belong together row by row: they must have as many.

    Raises:
        InvalidOptions: they have not, or the target holds no numbers.
    """
    rows = dict(rows)
    if target is not None:
        if target.dtype.kind not in "fiub" or not target.size:
            raise InvalidOptions(
                "target_mismatch",
                f"targets of type {target.dtype} and shape {target.shape} are no targets",
                where="data.target",
                hint="give class indices (integers) or values (floats), one row per input",
            )
        rows["target"] = target.shape[0] if target.ndim else 1
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise InvalidOptions(
            "target_mismatch" if target is not None else "shape_mismatch",
            f"arrays in the data file have different numbers of rows: {told}",
            where="data",
            hint="give one row per input in every array",
        )
