"""Ops that summarise sliding windows or whole feature maps."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops.row import Result, op
from gradgauge.ops.window import Window, resolve

_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _simple(win: Window, ceil_mode: int) -> bool:
    """Whether torch's own symmetric padding, at most half a kernel, says it all."""
    halves = all(2 * low <= k for low, k in zip(win.before, win.kernel, strict=True))
    return not ceil_mode and win.before == win.after and halves


def _pads(win: Window, ceil_mode: int) -> list[int]:
    """functional.pad's list that makes exactly the windows wanted, cutting what none covers."""
    ends = []
    for n, span, stride, low, count in zip(
        win.sizes,
        win.spans,
        win.strides,
        win.before,
        win.outputs(ceil=bool(ceil_mode)),
        strict=True,
    ):
        ends.append((low, (count - 1) * stride + span - n - low))
    return [p for pair in reversed(ends) for p in pair]


@op("pooling")
def MaxPool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    n_outputs: int = 1,
) -> Result:
    win = resolve(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad)
    pool = _MAX[len(win.kernel)]
    if n_outputs == 1 and _simple(win, ceil_mode):
        return pool(x, win.kernel, win.strides, win.before, win.dilations)
    lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
    padded = functional.pad(x, _pads(win, ceil_mode), value=lowest)
    y, at = pool(padded, win.kernel, win.strides, 0, win.dilations, return_indices=True)
    if n_outputs == 1:
        return y
    return y, _positions(at, padded.shape[2:], win, storage_order)


def _positions(at: Tensor, padded: Sequence[int], win: Window, storage_order: int) -> Tensor:
    """Positions in the padded map into positions in the whole unpadded tensor."""
    coordinates = []
    for size, low in zip(reversed(padded), reversed(win.before), strict=True):
        coordinates.append(at.remainder(size) - low)
        at = at.div(size, rounding_mode="floor")
    coordinates.reverse()
    axes = list(zip(coordinates, win.sizes, strict=True))
    flat = torch.zeros_like(at)
    for coordinate, size in reversed(axes) if storage_order else axes:
        flat = flat * size + coordinate
    whole = torch.Size(win.sizes).numel()
    maps = torch.arange(at.shape[0] * at.shape[1], device=at.device) * whole
    return flat + maps.reshape(at.shape[0], at.shape[1], *(1,) * len(win.sizes))


def _windows(x: Tensor, win: Window) -> Tensor:
    """Shape [n, c, windows..., kernel...]: every window of a padded map, as a view."""
    for axis, (span, stride, dilation) in enumerate(
        zip(win.spans, win.strides, win.dilations, strict=True), start=2
    ):
        x = x.unfold(axis, span, stride)[..., ::dilation]
    return x


@op("pooling")
def AveragePool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    win = resolve(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad)
    if _simple(win, ceil_mode) and max(win.dilations) == 1:
        return _AVERAGE[len(win.kernel)](
            x, win.kernel, win.strides, win.before, count_include_pad=bool(count_include_pad)
        )
    grown = _pads(win, ceil_mode)
    axes = tuple(range(-len(win.kernel), 0))
    sums = _windows(functional.pad(x, grown), win).sum(axes)
    counted = _counted(x, win, grown, count_include_pad)
    return sums / _windows(counted, win).sum(axes)


def _counted(x: Tensor, win: Window, grown: Sequence[int], count_include_pad: int) -> Tensor:
    """1 where an element counts: the data, the padding if asked, never what `ceil_mode` adds."""
    ones = x.new_ones((1, 1, *win.sizes))
    if count_include_pad:
        ends = list(zip(reversed(win.before), reversed(win.after), strict=True))
        ones = functional.pad(ones, [p for pair in ends for p in pair], value=1.0)
        grown = [g - p for g, p in zip(grown, (p for pair in ends for p in pair), strict=True)]
    return functional.pad(ones, list(grown))


@op("pooling", since=2)
def LpPool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    p: int = 2,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    win = resolve(x.shape[2:], kernel_shape, strides, dilations, pads, auto_pad)
    held = _windows(functional.pad(x, _pads(win, ceil_mode)), win).flatten(-len(win.kernel))
    norm: Tensor = torch.linalg.vector_norm(held, p, dim=-1)
    return norm


@op("pooling")
def GlobalAveragePool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@op("pooling")
def GlobalMaxPool(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@op("pooling", since=2)
def GlobalLpPool(x: Tensor, *, p: int = 2) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, p, dim=tuple(range(2, x.dim())), keepdim=True)
    return norm
