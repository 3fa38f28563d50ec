"""Shapes, constants, casts and comparisons: what carries no gradient of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradgauge.ops.row import op, plain

plain(
    "plumbing",
    {
        "And": torch.logical_and,
        "BitwiseAnd": torch.bitwise_and,
        "BitwiseNot": torch.bitwise_not,
        "BitwiseOr": torch.bitwise_or,
        "BitwiseXor": torch.bitwise_xor,
        "Equal": torch.eq,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "IsNaN": torch.isnan,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "Not": torch.logical_not,
        "Or": torch.logical_or,
        "Where": torch.where,
        "Xor": torch.logical_xor,
    },
    since=7,
)


@op("plumbing")
def Constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
) -> Tensor:
    if value is not None:
        return value
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
def Cast(x: Tensor, *, to: torch.dtype, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """To a float8 what is too large becomes the largest number.

    `round_mode` only concerns float8e8m0, which the executor does not offer.

    Raises:
        ValueError: a cast to float8 is to overflow instead (`saturate` 0), which torch cannot.
    """
    del round_mode
    if to.is_floating_point and to.itemsize == 1:
        if not saturate:
            raise ValueError(f"a cast to {to} with saturate=0 is not supported")
        limit = torch.finfo(to).max
        x = x.clamp(-limit, limit)
    return x.to(to)


@op("plumbing", since=15)
def CastLike(x: Tensor, target: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return Cast(x, to=target.dtype, saturate=saturate, round_mode=round_mode)


@op("plumbing", since=11)
def BitShift(x: Tensor, y: Tensor, *, direction: str) -> Tensor:
    return x << y if direction == "LEFT" else x >> y


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
