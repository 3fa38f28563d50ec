"""Quantised ops of ai.onnx; gradients pass straight through the rounding (ops/straight.py)."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from gradgauge.ops import linear
from gradgauge.ops.row import op
from gradgauge.ops.straight import carried, carry

Stored = Tensor | np.ndarray[Any, Any]
# element types without arithmetic in torch: lowest, highest
_NARROW = {
    np.dtype(ml_dtypes.int2): (-2, 1),
    np.dtype(ml_dtypes.uint2): (0, 3),
    np.dtype(ml_dtypes.int4): (-8, 7),
    np.dtype(ml_dtypes.uint4): (0, 15),
    np.dtype(ml_dtypes.float4_e2m1fn): (-6, 6),
}


def numbers(x: Stored) -> Tensor:
    """Array elements torch has no type for, as int32 or float32."""
    if isinstance(x, Tensor):
        return x
    return torch.from_numpy(x.astype(np.float32 if "float" in x.dtype.name else np.int32))


def _spread(v: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """A scale or zero point, broadcast to x: per tensor, per axis, or per block along it."""
    if v.dim() == 0 or (v.numel() == 1 and v.dim() <= 1):
        return v.reshape(())
    if block_size:
        return v.repeat_interleave(block_size, axis).narrow(axis, 0, x.shape[axis])
    if v.dim() == 1:
        return v.reshape([-1 if k == axis % x.dim() else 1 for k in range(x.dim())])
    return v


def _rounded(u: Tensor, dtype: Any, zero: Tensor | None) -> Stored:
    """Nearest even plus the zero point, saturated to `dtype`."""
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        limit = torch.finfo(dtype).max
        return u.clamp(-limit, limit).to(dtype)
    if isinstance(dtype, torch.dtype):
        low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    else:
        low, high = _NARROW[dtype]
    floats = not isinstance(dtype, torch.dtype) and "float" in dtype.name
    steps = u if floats else torch.round(u) + (0 if zero is None else zero)
    bounded = steps.clamp(low, high)
    if isinstance(dtype, torch.dtype):
        result = bounded.detach().to(torch.int64).to(dtype)
        # clamped, so that what saturates has no gradient
        return carry(result, (u + (0 if zero is None else zero)).clamp(low, high))
    return bounded.detach().cpu().numpy().astype(dtype)


def _kind(zero: Stored | None, chosen: Any) -> Any:
    if zero is not None:
        return zero.dtype
    return torch.uint8 if chosen in (None, 0) else chosen


@op("plumbing", since=10)
def QuantizeLinear(
    x: Tensor,
    scale: Tensor,
    zero_point: Stored | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: Any = None,
    precision: Any = None,
    saturate: int = 1,
) -> Stored:
    """saturate(round(x / scale) + zero_point), in the scale's precision."""
    del precision
    kind = _kind(zero_point, output_dtype)
    wide = x if x.dtype == torch.float64 else x.to(torch.promote_types(scale.dtype, torch.float32))
    if not x.is_floating_point():
        wide = x.to(torch.float64)
    wide = wide / _spread(scale.to(wide.dtype), x, axis, block_size)
    zero = None if zero_point is None else _spread(numbers(zero_point), x, axis, block_size)
    if isinstance(kind, torch.dtype) and kind.is_floating_point and not saturate:
        return wide.to(kind)
    return _rounded(wide, kind, None if zero is None else zero.to(wide.dtype))


@op("plumbing", since=10)
def DequantizeLinear(
    x: Stored,
    scale: Tensor,
    zero_point: Stored | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: Any = None,
) -> Tensor:
    """(x - zero_point) * scale, in the scale's element type."""
    kind = torch.promote_types(scale.dtype, torch.float32)
    wide = numbers(carried(x)).to(kind)
    if zero_point is not None:
        zero = _spread(numbers(zero_point), wide, axis, block_size)
        wide = wide - zero.to(wide.dtype)
    y = wide * _spread(scale.to(wide.dtype), wide, axis, block_size)
    return y.to(output_dtype if isinstance(output_dtype, torch.dtype) else scale.dtype)


@op("plumbing", since=11)
def DynamicQuantizeLinear(x: Tensor) -> tuple[Stored, Tensor, Tensor]:
    """uint8 over the data's range, which always holds zero."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round((-low / scale).clamp(0, 255)).detach().to(torch.uint8)
    return QuantizeLinear(x, scale, zero), scale, zero


def _shifted(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """In int32, remembering what x does."""
    offset = 0 if zero is None else _spread(zero.to(torch.int32), x, axis, 0)
    exact = x.to(torch.int32) - offset
    return exact if carried(x) is x else carry(exact, carried(x) - offset)


@op("plumbing", since=10)
def MatMulInteger(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    left, right = _shifted(a, a_zero, -2), _shifted(b, b_zero, -1)
    y = torch.matmul(left, right)
    if carried(left) is left and carried(right) is right:
        return y
    floats = [x if x.is_floating_point() else x.float() for x in (carried(left), carried(right))]
    kind = torch.promote_types(floats[0].dtype, floats[1].dtype)
    return carry(y, torch.matmul(floats[0].to(kind), floats[1].to(kind)))


@op("plumbing", since=10)
def ConvInteger(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Computed in float64, which is exact for sums of products of bytes."""
    left, right = _shifted(x, x_zero, 1), _shifted(w, w_zero, 0)
    y = linear.Conv(
        carried(left).double(),
        carried(right).double(),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return carry(y.detach().to(torch.int32), y)


@op("plumbing", since=10)
def QLinearMatMul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Stored:
    y = torch.matmul(
        DequantizeLinear(a, a_scale, a_zero, axis=-2).to(torch.float64),
        DequantizeLinear(b, b_scale, b_zero, axis=-1).to(torch.float64),
    )
    return QuantizeLinear(y, y_scale, y_zero, axis=-2)


@op("plumbing", since=10)
def QLinearConv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Stored:
    """The bias is in units of x_scale * w_scale."""
    y = linear.Conv(
        DequantizeLinear(x, x_scale, x_zero).double(),
        DequantizeLinear(w, w_scale, w_zero, axis=0).double(),
        None if b is None else (b.double() * x_scale.double() * w_scale.double()),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return QuantizeLinear(y, y_scale, y_zero)
