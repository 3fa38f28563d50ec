"""Ops that are linear in their data for fixed weights."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops.row import op
from gradgauge.ops.window import Window, resolve

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONV_TRANSPOSE = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@op("linear")
def MatMul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@op("linear", since=7)
def Gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    a = a.mT if transA else a
    b = b.mT if transB else b
    if not a.is_floating_point():
        y = (a @ b) * int(alpha)
        return y if c is None else y + c * int(beta)
    if c is None:
        return a @ b if alpha == 1 else alpha * (a @ b)
    return torch.addmm(c, a, b, alpha=alpha, beta=beta)


@op("linear", domain="com.microsoft")
def FusedMatMul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """`transBatch` moves the leading axis next to the last one, before `trans`."""
    a = a.movedim(0, -2) if transBatchA else a
    b = b.movedim(0, -2) if transBatchB else b
    y = torch.matmul(a.mT if transA else a, b.mT if transB else b)
    return y if alpha == 1 else alpha * y


@op("linear")
def Conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Shapes: x [n, c, d...], w [m, c / group, k...], b [m]; result [n, m, d'...]."""
    kernel = tuple(kernel_shape or w.shape[2:])
    win = resolve(x.shape[2:], kernel, strides, dilations, pads, auto_pad)
    padding: Sequence[int] = win.before
    if win.before != win.after:
        x, padding = functional.pad(x, _torch_pads(win)), (0,) * len(kernel)
    return _CONV[len(kernel)](x, w, b, win.strides, padding, win.dilations, group)


def _torch_pads(win: Window) -> list[int]:
    """functional.pad's order: the last axis first, before and after of each."""
    pairs = list(zip(win.before, win.after, strict=True))
    return [p for pair in reversed(pairs) for p in pair]


@op("linear")
def ConvTranspose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Computed unpadded, then cropped (or grown by `output_padding`), then the bias added."""
    kernel = tuple(kernel_shape or w.shape[2:])
    rank = len(kernel)
    stride = tuple(strides or (1,) * rank)
    dilation = tuple(dilations or (1,) * rank)
    extra = tuple(output_padding or (0,) * rank)
    full = _CONV_TRANSPOSE[rank](x, w, None, stride, 0, 0, group, dilation)
    sizes = [f + e for f, e in zip(full.shape[2:], extra, strict=True)]
    if output_shape is None and auto_pad.startswith("SAME"):
        output_shape = [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
    before, after = _crops(sizes, output_shape, pads, auto_pad)
    grown = [
        g
        for low, high, e in reversed(list(zip(before, after, extra, strict=True)))
        for g in (-low, e - high)
    ]
    y = functional.pad(full, grown)
    return y if b is None else y + b.reshape(-1, *(1,) * rank)


def _crops(
    sizes: Sequence[int],
    output_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
) -> tuple[list[int], list[int]]:
    """What to cut off each axis: the attribute, or the surplus over the wanted shape."""
    rank = len(sizes)
    if output_shape is None:
        both = list(pads or (0,) * 2 * rank) if auto_pad == "NOTSET" else [0] * 2 * rank
        return both[:rank], both[rank:]
    surplus = [n - wanted for n, wanted in zip(sizes, output_shape[-rank:], strict=True)]
    # where the wanted shape is larger, onnxruntime grows the end: padding is never negative
    before = [max(s, 0) // 2 if auto_pad == "SAME_UPPER" else (max(s, 0) + 1) // 2 for s in surplus]
    return before, [s - b for s, b in zip(surplus, before, strict=True)]
