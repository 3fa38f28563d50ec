"""Arrays handed from one confined child to another in a file: a line of JSON, then their bytes.

Either child may have been taken over by the model it runs: nothing here is unpickled, and no more
is read than the file holds.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import ml_dtypes
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

_HEADER_BYTES = 1 << 22
_PLAIN = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
_DTYPES: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(name) for name in _PLAIN.split()},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

Arrays = Sequence[tuple[str, np.ndarray | None]]


class Damaged(ValueError):
    """The file is not what `write` writes."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    dtype: str | None
    """None: there is no array of this name."""
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=64)]


_HEADER = TypeAdapter(list[_Entry])


def write(path: Path, arrays: Arrays) -> None:
    """Write `arrays` in their order; those of other element types count as absent.

    Raises:
        OSError: the file cannot hold them.
    """
    held = [(name, None if a is None or a.dtype.name not in _DTYPES else a) for name, a in arrays]
    entries: list[dict[str, Any]] = [
        {"name": name, "dtype": None, "shape": []}
        if a is None
        else {"name": name, "dtype": a.dtype.name, "shape": list(a.shape)}
        for name, a in held
    ]
    with path.open("wb") as file:
        file.write(json.dumps(entries).encode() + b"\n")
        for _, a in held:
            if a is not None:
                file.write(np.ascontiguousarray(a).tobytes())


def read(path: Path) -> list[tuple[str, np.ndarray | None]]:
    """What `write` wrote; raises Damaged for anything else."""
    with path.open("rb") as file:
        line = file.readline(_HEADER_BYTES)
        try:
            entries = _HEADER.validate_json(line)
            kinds = [None if e.dtype is None else _DTYPES[e.dtype] for e in entries]
        except (ValidationError, KeyError) as error:
            raise Damaged("its header is none") from error
        sizes = [
            0 if kind is None else math.prod(e.shape) * kind.itemsize
            for e, kind in zip(entries, kinds, strict=True)
        ]
        if path.stat().st_size != len(line) + sum(sizes):
            raise Damaged("it is not as long as its header says")
        return [
            (e.name, None if kind is None else _array(file.read(size), kind, e.shape))
            for e, kind, size in zip(entries, kinds, sizes, strict=True)
        ]


def _array(data: bytes, kind: np.dtype[Any], shape: list[int]) -> np.ndarray:
    return np.frombuffer(bytearray(data), kind).reshape(shape)
