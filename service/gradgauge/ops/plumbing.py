"""Shapes, constants, casts and comparisons: what carries no gradient of its own."""

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from gradgauge.ops.arrays import Array, array, by_numpy
from gradgauge.ops.row import op, plain
from gradgauge.ops.straight import carried

plain(
    "plumbing",
    {
        "And": torch.logical_and,
        "BitwiseAnd": by_numpy(torch.bitwise_and, np.bitwise_and),
        "BitwiseNot": by_numpy(torch.bitwise_not, np.bitwise_not),
        "BitwiseOr": by_numpy(torch.bitwise_or, np.bitwise_or),
        "BitwiseXor": by_numpy(torch.bitwise_xor, np.bitwise_xor),
        "Equal": by_numpy(torch.eq, np.equal),
        "Greater": by_numpy(torch.gt, np.greater),
        "GreaterOrEqual": by_numpy(torch.ge, np.greater_equal),
        "IsNaN": torch.isnan,
        "Less": by_numpy(torch.lt, np.less),
        "LessOrEqual": by_numpy(torch.le, np.less_equal),
        "Or": torch.logical_or,
        "Where": torch.where,
        "Xor": torch.logical_xor,
    },
    since=7,
)
plain("plumbing", {"Not": torch.logical_not})


@op("plumbing")
def Constant(
    *,
    value: Tensor | Array | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
    value_string: str | None = None,
    value_strings: Sequence[str] | None = None,
) -> Tensor | Array:
    if value is not None:
        return value
    if value_string is not None or value_strings is not None:
        return np.array(value_strings if value_string is None else value_string, dtype=object)
    if value_int is not None or value_ints is not None:
        return torch.tensor(value_ints if value_int is None else value_int, dtype=torch.int64)
    return torch.tensor(value_floats if value_float is None else value_float, dtype=torch.float32)


@op("plumbing", since=9)
def ConstantOfShape(shape: Tensor, *, value: Tensor | None = None) -> Tensor:
    fill = torch.zeros((), device=shape.device) if value is None else value.reshape(())
    return fill.expand(shape.tolist()).clone()


@op("plumbing")
def Shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    return torch.tensor(x.shape[start:end], dtype=torch.int64, device=x.device)


@op("plumbing")
def Size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@op("plumbing", since=11)
def Range(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """max(ceil((limit - start) / delta), 0) elements."""
    first, last, step = (
        float(v.detach()) if v.is_floating_point() else int(v) for v in (start, limit, delta)
    )
    if step == 0:
        raise ValueError("Range with a delta of 0 never ends")
    count = max(int(-((first - last) // step)), 0)
    return start.reshape(()) + torch.arange(count, device=start.device).to(start.dtype) * delta


@op("plumbing", since=6)
def Cast(x: Any, *, to: Any, saturate: int = 1, round_mode: str = "up") -> Any:
    """To a float8 what is too large becomes the largest number, or NaN or infinity (`saturate` 0).

    Strings, int2, int4, float4 and their like are numpy arrays, and go through numpy.
    """
    if isinstance(x, np.ndarray):
        return _from_array(x, to)
    if isinstance(to, np.dtype):
        return _to_array(x, to)
    if to.is_floating_point:
        x = carried(x)
    if to == torch.float8_e8m0fnu:
        return _power_of_two(x, round_mode)
    if to.is_floating_point and to.itemsize == 1 and saturate and x.is_floating_point():
        wide = x.to(torch.promote_types(x.dtype, torch.float32)) if x.itemsize > 1 else x.float()
        limit = torch.finfo(to).max
        x = wide.clamp(-limit, limit)
    elif to == torch.float8_e4m3fn and x.is_floating_point():
        # torch saturates this one; beyond half a step above the largest there is only NaN
        x = torch.where(x.float().abs() > 464, math.nan, x)
    return x.to(to)


def _from_array(x: Array, to: Any) -> Any:
    """Through float32 or int32 where the elements are numbers, parsed where they are strings."""
    if x.dtype == object:
        if isinstance(to, np.dtype):
            return x
        parse = float if to.is_floating_point else int
        words = [parse(word) for word in x.reshape(-1)]
        return torch.tensor(words, dtype=to).reshape(x.shape)
    wide = x.astype(np.float32 if "float" in x.dtype.name else np.int32)
    return Cast(torch.from_numpy(wide), to=to)


_RANGES = {
    np.dtype(ml_dtypes.int2): (2, 2),
    np.dtype(ml_dtypes.uint2): (2, 0),
    np.dtype(ml_dtypes.int4): (4, 8),
    np.dtype(ml_dtypes.uint4): (4, 0),
}


def _to_array(x: Tensor, to: np.dtype[Any]) -> Array:
    """Integers keep their lowest bits; a number as text is as numpy writes it."""
    held = array(x)
    if to.kind == "O":
        words = np.empty(held.shape, dtype=object)
        words.reshape(-1)[:] = [str(v) for v in held.reshape(-1)]
        return words
    if to in _RANGES:
        bits, below = _RANGES[to]
        whole = np.trunc(held.astype(np.float64)).astype(np.int64)
        kept: Array = ((whole + below) % 2**bits - below).astype(to)
        return kept
    narrow: Array = held.astype(np.float32).astype(to)
    return narrow


def _power_of_two(x: Tensor, round_mode: str) -> Tensor:
    """float8e8m0: the exponent alone, rounded up, down or to the nearest (ONNX Cast-24)."""
    wide = x.detach().float()
    part, exponent = torch.frexp(wide.abs())
    up = {"up": part > 0.5, "down": part < 0, "nearest": part >= 0.75}[round_mode]
    bits = (exponent - 1 + up.int() + 127).clamp(0, 254)
    bits = torch.where(part == 0, 0, bits)
    bits = torch.where(wide.isnan(), 255, torch.where(wide.isinf(), 254, bits))
    return bits.to(torch.uint8).view(torch.float8_e8m0fnu)


@op("plumbing", since=15)
def CastLike(x: Any, target: Any, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return Cast(x, to=target.dtype, saturate=saturate, round_mode=round_mode)


@op("plumbing", since=26)
def BitCast(x: Tensor, *, to: Any) -> Tensor:
    """The same bits read as another type of the same width.

    Raises:
        TypeError: the types differ in width or one of them is no tensor's.
    """
    if not isinstance(to, torch.dtype) or to.itemsize != x.element_size():
        raise TypeError(f"the bits of {x.dtype} cannot be read as {to}")
    return x.detach().contiguous().view(to)


@op("plumbing", since=11)
def BitShift(x: Tensor, y: Tensor, *, direction: str) -> Tensor:
    """A shift by less than 0 or by the width or more shifts everything out (ONNX BitShift-28)."""
    left = direction == "LEFT"
    amount, bits = array(y), array(x)
    width = bits.dtype.itemsize * 8
    within = (amount >= 0) & (amount < width)
    shifted = (np.left_shift if left else np.right_shift)(bits, np.where(within, amount, 0))
    signs = 0 if left else np.where(bits < 0, -1, 0)
    kept = np.where(within, shifted, signs).astype(bits.dtype)
    return torch.from_numpy(kept).to(x.device)


@op("plumbing", since=9)
def EyeLike(x: Tensor, *, dtype: torch.dtype | None = None, k: int = 0) -> Tensor:
    rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    columns = torch.arange(x.shape[1], device=x.device)
    return (columns == rows + k).to(dtype or x.dtype)


@op("plumbing", since=10)
def IsInf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    found = torch.isposinf(x) & bool(detect_positive)
    return found | (torch.isneginf(x) & bool(detect_negative))


@op("plumbing", since=9)
def NonZero(x: Tensor) -> Tensor:
    return torch.nonzero(x).T
