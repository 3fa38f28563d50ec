"""Quantised ops of com.microsoft: dequantise, compute in float, quantise again."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradgauge.ops import contraction, movement, pooling, quantisation
from gradgauge.ops.quantisation import DequantizeLinear, QuantizeLinear, Stored
from gradgauge.ops.row import op

_DOMAIN = "com.microsoft"

op("plumbing", domain=_DOMAIN)(DequantizeLinear)
op("plumbing", domain=_DOMAIN)(QuantizeLinear)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Stored]:
    def run(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor | None,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor | None,
        y_scale: Tensor,
        y_zero: Tensor | None = None,
    ) -> Stored:
        y = function(DequantizeLinear(a, a_scale, a_zero), DequantizeLinear(b, b_scale, b_zero))
        return _requantised(y, y_scale, y_zero, a)

    return run


def _requantised(y: Tensor, scale: Tensor, zero: Tensor | None, like: Tensor) -> Stored:
    return QuantizeLinear(y, scale, zero, output_dtype=like.dtype)


op("plumbing", domain=_DOMAIN, name="QLinearAdd")(_binary(torch.add))
op("plumbing", domain=_DOMAIN, name="QLinearMul")(_binary(torch.mul))


@op("plumbing", domain=_DOMAIN)
def QLinearSigmoid(
    x: Tensor, scale: Tensor, zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Stored:
    return _requantised(torch.sigmoid(DequantizeLinear(x, scale, zero)), y_scale, y_zero, x)


@op("plumbing", domain=_DOMAIN)
def QLinearLeakyRelu(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> Stored:
    y = torch.nn.functional.leaky_relu(DequantizeLinear(x, scale, zero), alpha)
    return _requantised(y, y_scale, y_zero, x)


@op("plumbing", domain=_DOMAIN)
def QLinearSoftmax(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
    *,
    opset: int,
    axis: int = -1,
) -> Stored:
    """Before opset 13 the axes from `axis` on are one."""
    run = contraction.Softmax if opset >= 13 else contraction.Softmax_1
    return _requantised(run(DequantizeLinear(x, scale, zero), axis=axis), y_scale, y_zero, x)


@op("plumbing", domain=_DOMAIN)
def QLinearGlobalAveragePool(
    x: Tensor,
    scale: Tensor,
    zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    channels_last: int = 0,
) -> Stored:
    wide = DequantizeLinear(x, scale, zero)
    axes = list(range(1, x.dim() - 1) if channels_last else range(2, x.dim()))
    return _requantised(wide.mean(axes, keepdim=True), y_scale, y_zero, x)


@op("plumbing", domain=_DOMAIN)
def QLinearAveragePool(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Stored:
    wide = DequantizeLinear(x, scale, zero)
    y = pooling.AveragePool(
        wide.movedim(-1, 1) if channels_last else wide,
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        pads=pads,
        strides=strides,
    )
    return _requantised(y.movedim(1, -1) if channels_last else y, y_scale, y_zero, x)


@op("plumbing", domain=_DOMAIN)
def QLinearConcat(y_scale: Tensor, y_zero: Tensor, *triples: Tensor, axis: int) -> Stored:
    """Each tensor is followed by its scale and its zero point."""
    parts = zip(triples[::3], triples[1::3], triples[2::3], strict=True)
    wide = [DequantizeLinear(x, scale, zero) for x, scale, zero in parts]
    return _requantised(movement.Concat(*wide, axis=axis), y_scale, y_zero, triples[0])


@op("plumbing", domain=_DOMAIN)
def QGemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Stored:
    """`c` is in units of alpha * a_scale * b_scale; float out where no scale is given."""
    left = DequantizeLinear(a, a_scale, a_zero)
    right = DequantizeLinear(b, b_scale, b_zero, axis=0 if transB else -1)
    y = alpha * ((left.mT if transA else left) @ (right.mT if transB else right))
    if c is not None:
        y = y + c * (alpha * a_scale * b_scale)
    return y if y_scale is None else _requantised(y, y_scale, y_zero, a)


@op("plumbing", domain=_DOMAIN)
def MatMulIntegerToFloat(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    left = DequantizeLinear(a, a_scale, a_zero, axis=-2)
    y = left @ DequantizeLinear(b, b_scale, b_zero, axis=-1)
    return y if bias is None else y + bias


@op("plumbing", domain=_DOMAIN)
def DynamicQuantizeMatMul(
    a: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    held, scale, zero = quantisation.DynamicQuantizeLinear(a)
    left = DequantizeLinear(held, scale, zero)
    y = left @ DequantizeLinear(b, b_scale, b_zero, axis=-1)
    return y if bias is None else y + bias


def _unpacked(packed: Tensor, bits: int, count: int) -> Tensor:
    """The lowest bits of a byte first; [..., bytes] into [..., count]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.int32, device=packed.device)
    fields = torch.bitwise_and(packed.to(torch.int32).unsqueeze(-1) >> shifts, 2**bits - 1)
    return fields.flatten(-2)[..., :count]


@op("linear", domain=_DOMAIN)
def MatMulNBits(
    a: Tensor,
    b: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    g_idx: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    block_size: int,
    accuracy_level: int = 0,
    bits: int = 4,
    weight_prepacked: int = 0,
) -> Tensor:
    """A [..., K] times the transpose of b, N rows of K numbers packed in blocks along K.

    `accuracy_level` lets an implementation round `a`; this one does not.
    """
    if weight_prepacked or (g_idx is not None and g_idx.numel()) or bits not in {2, 4, 8}:
        raise ValueError(f"prepacked weights, g_idx and {bits} bits are not supported")
    del accuracy_level
    blocks = -(-K // block_size)
    whole = _unpacked(b.reshape(N, blocks, -1), bits, block_size)
    zeros: Any = 2 ** (bits - 1)
    if zero_points is not None and zero_points.is_floating_point():
        zeros = zero_points.reshape(N, blocks, 1)
    elif zero_points is not None:
        zeros = _unpacked(zero_points.reshape(N, -1), bits, blocks).unsqueeze(-1)
    weight = (whole.to(scales.dtype) - zeros) * scales.reshape(N, blocks, 1)
    y: Tensor = a @ weight.reshape(N, -1)[:, :K].mT.to(a.dtype)
    return y if bias is None else y + bias
