"""Ops that read a map between its elements, or put windows back into one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops.row import op
from gradgauge.ops.window import resolve

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@op("movement", since=16)
def GridSample(
    x: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    """Shapes: x [n, c, d...], grid [n, d'..., rank] in [-1, 1]; two or three spatial axes."""
    return functional.grid_sample(
        x, grid.to(x.dtype), _MODES.get(mode, mode), padding_mode, bool(align_corners)
    )


@op("movement", since=20)
def AffineGrid(theta: Tensor, size: Tensor, *, align_corners: int = 0) -> Tensor:
    return functional.affine_grid(theta, size.tolist(), bool(align_corners))


@op("movement", since=18)
def CenterCropPad(x: Tensor, shape: Tensor, *, axes: Sequence[int] | None = None) -> Tensor:
    """Where the difference is odd, the end loses or gains the odd one."""
    for axis, wanted in zip(range(x.dim()) if axes is None else axes, shape.tolist(), strict=True):
        surplus = x.shape[axis] - wanted
        if surplus > 0:
            x = x.narrow(axis, surplus // 2, wanted)
        elif surplus < 0:
            ends = [0, 0] * (x.dim() - 1 - axis % x.dim())
            x = functional.pad(x, [*ends, -surplus // 2, -surplus - (-surplus // 2)])
    return x


@op("movement", since=18)
def Col2Im(
    x: Tensor,
    image_shape: Tensor,
    block_shape: Tensor,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Shapes: x [n, c prod(block), windows]; overlapping windows add up in [n, c, image...]."""
    image, block = image_shape.tolist(), block_shape.tolist()
    win = resolve(image, block, strides, dilations, pads, "NOTSET")
    counts = win.outputs(ceil=False)
    padded = [n + a + b for n, a, b in zip(image, win.before, win.after, strict=True)]
    rank = len(image)
    at = torch.zeros((1,) * 2 * rank, dtype=torch.long, device=x.device)
    for k in range(rank):
        inner = torch.arange(block[k], device=x.device) * win.dilations[k]
        outer = torch.arange(counts[k], device=x.device) * win.strides[k]
        shape_in = [-1 if d == k else 1 for d in range(2 * rank)]
        shape_out = [-1 if d == k + rank else 1 for d in range(2 * rank)]
        at = at * padded[k] + inner.reshape(shape_in) + outer.reshape(shape_out)
    channels = x.shape[1] // math.prod(block)
    flat = x.reshape(x.shape[0], channels, -1)
    y = x.new_zeros(x.shape[0], channels, math.prod(padded))
    y = y.index_add(2, at.reshape(-1), flat).reshape(x.shape[0], channels, *padded)
    for k, low in enumerate(win.before):
        y = y.narrow(k + 2, low, image[k])
    return y


@op("movement", since=9)
def MaxUnpool(
    x: Tensor,
    indices: Tensor,
    output_shape: Tensor | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """`indices` are positions in the whole unpooled tensor; a larger `output_shape` adds zeros."""
    rank = len(kernel_shape)
    steps, ends = strides or [1] * rank, pads or [0] * 2 * rank
    inferred = [
        (x.shape[k + 2] - 1) * steps[k] - ends[k] - ends[k + rank] + kernel_shape[k]
        for k in range(rank)
    ]
    shape = torch.Size([*x.shape[:2], *inferred])
    wanted = shape if output_shape is None else torch.Size(output_shape.tolist())
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < shape.numel():
        raise IndexError(f"an index outside the {shape.numel()} elements unpooled")
    y = x.new_zeros(shape.numel()).scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(shape)
    grown = [p for k in reversed(range(len(shape))) for p in (0, wanted[k] - shape[k])]
    return functional.pad(y, grown)


@op("pooling", since=10, name="RoiAlign")
def RoiAlign_10(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Before opset 16 coordinates are not shifted by half a pixel."""
    return RoiAlign(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@op("pooling", since=16)
def RoiAlign(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Shapes: x [n, c, h, w], rois [r, 4] as x1 y1 x2 y2; result [r, c, height, width].

    Bilinear samples per bin, averaged (He et al. 2017) or, with mode "max", the largest of the
    samples' weighted corners (ONNX RoiAlign).
    """
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    found = []
    for roi, image in zip(rois, batch_indices.tolist(), strict=True):
        x1, y1, x2, y2 = (roi * spatial_scale - shift).unbind()
        high, wide = y2 - y1, x2 - x1
        if not shift:
            high, wide = high.clamp(min=1.0), wide.clamp(min=1.0)
        rows = _grid(y1, high, output_height, sampling_ratio)
        across = _grid(x1, wide, output_width, sampling_ratio)
        corners = _corners(x[image], rows.reshape(-1), across.reshape(-1))
        c, bins = x.shape[1], (output_height, rows.shape[1], output_width, across.shape[1])
        samples = corners.reshape(4, c, *bins)
        if mode == "avg":
            found.append(samples.sum(0).mean((2, 4)))
        else:
            found.append(samples.amax(0).amax((2, 4)))
    return torch.stack(found) if found else x.new_zeros(0, x.shape[1], output_height, output_width)


def _grid(start: Tensor, length: Tensor, bins: int, ratio: int) -> Tensor:
    """[bins, samples] coordinates."""
    size = length / bins
    count = ratio or max(math.ceil(float(size.detach())), 1)
    # in the coordinates' dtype: a scalar tensor of float64 would not widen these
    inside = (torch.arange(count, device=start.device, dtype=start.dtype) + 0.5) / count
    each = torch.arange(bins, device=start.device, dtype=start.dtype).unsqueeze(1)
    return start + size * (each + inside)


def _corners(x: Tensor, rows: Tensor, across: Tensor) -> Tensor:
    """[4, c, rows, across]: each point's four weighted neighbours; zero more than 1 outside."""
    ends = []
    for given, size in ((rows, x.shape[1]), (across, x.shape[2])):
        valid = (given >= -1) & (given <= size)
        at = given.clamp(0, size - 1)
        low = at.detach().floor().clamp(max=max(size - 1, 0))
        high = (low + 1).clamp(max=size - 1)
        part = at - low
        ends.append(((low.long(), (1 - part) * valid), (high.long(), part * valid)))
    return torch.stack(
        [x[:, r][:, :, c] * (wr.unsqueeze(1) * wc) for r, wr in ends[0] for c, wc in ends[1]]
    )


@op("pooling")
def MaxRoiPool(
    x: Tensor, rois: Tensor, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """The largest element of each bin, 0 where a bin lies outside (Girshick 2015).

    Shapes: x [n, c, h, w], rois [r, 5] as image x1 y1 x2 y2; result [r, c, height, width]. The
    corners are rounded to elements, so that none of the gradient is theirs.
    """
    found = []
    for image, *corners in rois.detach().tolist():
        x1, y1, x2, y2 = (math.floor(v * spatial_scale + 0.5) for v in corners)
        rows = _bins(y1, y2, pooled_shape[0], x.shape[2])
        columns = _bins(x1, x2, pooled_shape[1], x.shape[3])
        held = [x[int(image), :, a:b, c:d] for a, b in rows for c, d in columns]
        largest = [v.amax((1, 2)) if v.numel() else x.new_zeros(x.shape[1]) for v in held]
        found.append(torch.stack(largest, 1).reshape(-1, *pooled_shape))
    return torch.stack(found) if found else x.new_zeros(0, x.shape[1], *pooled_shape)


def _bins(first: int, last: int, count: int, size: int) -> list[tuple[int, int]]:
    """Where each bin starts and ends, cut to the map."""
    each = max(last - first + 1, 1) / count
    ends = [(math.floor(k * each) + first, math.ceil((k + 1) * each) + first) for k in range(count)]
    return [(min(max(a, 0), size), min(max(b, 0), size)) for a, b in ends]


@op("linear", since=19)
def DeformConv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Dai et al. 2017, with Zhu et al. 2019's mask; two spatial axes.

    Shapes: x [n, c, h, w], offset [n, offset_group kh kw 2, h', w'] as pairs of row and column,
    mask [n, offset_group kh kw, h', w'].
    """
    if x.dim() != 4:
        raise ValueError(f"DeformConv on {x.dim() - 2} spatial axes is not supported")
    kernel = list(kernel_shape or w.shape[2:])
    win = resolve(x.shape[2:], kernel, strides, dilations, pads, "NOTSET")
    high, wide = win.outputs(ceil=False)
    n, c, taps = x.shape[0], x.shape[1], math.prod(kernel)
    moved = offset.reshape(n * offset_group, taps, 2, high, wide)
    places = []
    for k, (count, size) in enumerate(zip((high, wide), x.shape[2:], strict=True)):
        out = torch.arange(count, device=x.device) * win.strides[k] - win.before[k]
        tap = torch.arange(kernel[k], device=x.device) * win.dilations[k]
        tap = tap.repeat_interleave(kernel[1]) if k == 0 else tap.repeat(kernel[0])
        base = tap.reshape(-1, 1, 1) + (out.reshape(-1, 1) if k == 0 else out)
        at = moved[:, :, k] + base
        # grid_sample's [-1, 1] with aligned corners; a map of one element has its centre at 0
        places.append(2 * at / (size - 1) - 1 if size > 1 else 2 * at)
    grid = torch.stack(places[::-1], -1).reshape(n * offset_group, taps * high, wide, 2)
    maps = x.reshape(n * offset_group, c // offset_group, *x.shape[2:])
    columns = functional.grid_sample(maps, grid, "bilinear", "zeros", align_corners=True)
    columns = columns.reshape(n, offset_group, c // offset_group, taps, high, wide)
    if mask is not None:
        columns = columns * mask.reshape(n, offset_group, 1, taps, high, wide)
    columns = columns.reshape(n, group, c // group * taps, high * wide)
    y = torch.einsum("ngkp,gmk->ngmp", columns, w.reshape(group, w.shape[0] // group, -1))
    y = y.reshape(n, w.shape[0], high, wide)
    return y if b is None else y + b.reshape(-1, 1, 1)
