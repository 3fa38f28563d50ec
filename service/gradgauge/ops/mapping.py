"""The few ops of ai.onnx.ml that are neither trees nor classifiers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradgauge.ops.arrays import Array, array
from gradgauge.ops.row import op

_DOMAIN = "ai.onnx.ml"


@op("movement", domain=_DOMAIN)
def ArrayFeatureExtractor(x: Tensor, at: Tensor) -> Tensor:
    """Columns of the last axis; a vector counts as one row."""
    rows = x.reshape(1, -1) if x.dim() == 1 else x
    return rows.index_select(-1, at.reshape(-1))


@op("plumbing", domain=_DOMAIN)
def Binarizer(x: Tensor, *, threshold: float = 0.0) -> Tensor:
    return (x > threshold).to(x.dtype)


@op("plumbing", domain=_DOMAIN, since=2)
def LabelEncoder(
    x: Tensor | Array,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Tensor | Array | None = None,
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    keys_tensor: Tensor | Array | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
    values_tensor: Tensor | Array | None = None,
) -> Tensor | Array:
    """The value of each key; NaN matches NaN."""
    held = _given(keys_floats, keys_int64s, keys_strings, keys_tensor)
    keys = held.tolist() if isinstance(held, Tensor | np.ndarray) else held
    values, default, dtype = _values(
        (values_floats, default_float, np.float32),
        (values_int64s, default_int64, np.int64),
        (values_strings, default_string, object),
        (values_tensor, default_tensor, None),
    )
    table = {_key(k): v for k, v in zip(keys, values, strict=True)}
    data = array(x)
    found = np.empty(data.shape, dtype=dtype)
    found.reshape(-1)[:] = [table.get(_key(k), default) for k in data.reshape(-1).tolist()]
    return found if found.dtype == object else torch.from_numpy(found)


def _given(*choices: Any) -> Any:
    chosen = [c for c in choices if c is not None]
    if len(chosen) != 1:
        raise ValueError(f"{len(chosen)} of the keys_* or values_* attributes are set instead of 1")
    return chosen[0]


def _values(*choices: tuple[Any, Any, Any]) -> tuple[list[Any], Any, Any]:
    """Values, default and numpy dtype of the one that is set."""
    values, default, dtype = _given(*(c if c[0] is not None else None for c in choices))
    if dtype is not None:
        return list(values), default, dtype
    held = array(values)
    unset = "_Unused" if held.dtype == object else -1 if held.dtype.kind in "iu" else -0.0
    return held.tolist(), unset if default is None else array(default).reshape(-1)[0], held.dtype


def _key(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and value != value else value  # noqa: PLR0124 - NaN
