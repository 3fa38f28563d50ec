"""Ops that move, copy, cut or join elements without computing on them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops.axes import within
from gradgauge.ops.row import op


@op("movement")
def Identity(x: Tensor) -> Tensor:
    return x


@op("movement", since=5)
def Reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """A 0 copies the input's size on that axis, unless `allowzero`."""
    sizes = shape.tolist()
    return x.reshape([x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(sizes)])


@op("movement")
def Transpose(x: Tensor, *, perm: Sequence[int] | None = None) -> Tensor:
    return x.permute(tuple(reversed(range(x.dim()))) if perm is None else tuple(perm))


@op("movement")
def Flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(x.shape[:axis].numel(), x.shape[axis:].numel())


def _squeeze(x: Tensor, axes: Sequence[int] | None) -> Tensor:
    if axes is None:
        return x.squeeze()
    for axis in axes:
        if x.shape[axis] != 1:
            raise ValueError(f"cannot squeeze axis {axis} of size {x.shape[axis]}")
    return x.squeeze(tuple(axes))


def _unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@op("movement", name="Squeeze")
def Squeeze_1(x: Tensor, *, axes: Sequence[int] | None = None) -> Tensor:
    return _squeeze(x, axes)


@op("movement", since=13)
def Squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return _squeeze(x, None if axes is None else axes.tolist())


@op("movement", name="Unsqueeze")
def Unsqueeze_1(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    return _unsqueeze(x, axes)


@op("movement", since=13)
def Unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    return _unsqueeze(x, axes.reshape(-1).tolist())


@op("movement", since=4)
def Concat(*xs: Tensor, axis: int) -> Tensor:
    return torch.cat(xs, axis)


def _even(size: int, parts: int) -> list[int]:
    """Chunks of ceil(size / parts), the last ones smaller (ONNX Split-18)."""
    if parts < 1:
        raise ValueError(f"num_outputs={parts}: there is at least one part")
    chunk = -(-size // parts)
    return [max(min(chunk, size - i * chunk), 0) for i in range(parts)]


@op("movement", name="Split", since=2)
def Split_2(
    x: Tensor, *, axis: int = 0, split: Sequence[int] | None = None, n_outputs: int
) -> tuple[Tensor, ...]:
    return torch.split_with_sizes(x, list(split or _even(x.shape[axis], n_outputs)), axis)


@op("movement", since=13)
def Split(
    x: Tensor,
    split: Tensor | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    parts = n_outputs if num_outputs is None else num_outputs
    sizes = _even(x.shape[axis], parts) if split is None else split.tolist()
    return torch.split_with_sizes(x, sizes, axis)


def _slice(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Tensor:
    """Bounds are clamped as Python clamps them; torch takes no negative step."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        begin, stop, stride = slice(start, end, step).indices(x.shape[axis])
        if stride > 0:
            x = x[(*[slice(None)] * within(axis, x.dim()), slice(begin, max(begin, stop), stride))]
        else:
            x = x.index_select(axis, torch.arange(begin, min(begin, stop), stride, device=x.device))
    return x


@op("movement", name="Slice")
def Slice_1(
    x: Tensor, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Tensor:
    return _slice(x, starts, ends, axes, None)


@op("movement", since=10)
def Slice(
    x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    return _slice(
        x,
        starts.tolist(),
        ends.tolist(),
        None if axes is None else axes.tolist(),
        None if steps is None else steps.tolist(),
    )


@op("movement", since=8)
def Expand(x: Tensor, shape: Tensor) -> Tensor:
    """Broadcasts both ways: a 1 in `shape` keeps the input's size."""
    wanted = shape.tolist()
    rank = max(len(wanted), x.dim())
    ours, theirs = ([1] * (rank - len(s)) + list(s) for s in (x.shape, wanted))
    return x.expand([n if w == 1 else w for n, w in zip(ours, theirs, strict=True)])


@op("movement", since=6)
def Tile(x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(repeats.tolist())


@op("movement", since=14)
def Trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@op("movement", name="Pad", since=2)
def Pad_2(x: Tensor, *, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    return _pad(x, pads, mode, x.new_tensor(value), range(x.dim()))


@op("movement", since=11)
def Pad(
    x: Tensor,
    pads: Tensor,
    constant_value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    """Negative pads cut; axes (opset 18) default to all."""
    value = x.new_zeros(()) if constant_value is None else constant_value.reshape(())
    return _pad(x, pads.tolist(), mode, value, range(x.dim()) if axes is None else axes.tolist())


def _pad(x: Tensor, pads: Sequence[int], mode: str, value: Tensor, axes: Sequence[int]) -> Tensor:
    lows, highs = pads[: len(axes)], pads[len(axes) :]
    ends = {within(a, x.dim()): both for a, *both in zip(axes, lows, highs, strict=True)}
    if mode != "constant":
        for axis, (low, high) in ends.items():
            if low or high:
                x = x.index_select(axis, _sources(x.shape[axis], low, high, mode).to(x.device))
        return x
    flat = [p for axis in reversed(range(x.dim())) for p in ends.get(axis, (0, 0))]
    if not value.requires_grad:
        return functional.pad(x, flat, value=value.item())
    inside = functional.pad(torch.ones_like(x, dtype=torch.bool), flat, value=False)
    return torch.where(inside, functional.pad(x, flat), value)


def _sources(size: int, low: int, high: int, mode: str) -> Tensor:
    """The element each padded position repeats."""
    at = torch.arange(-low, size + high)
    if mode == "edge":
        return at.clamp(0, size - 1)
    if mode == "wrap":
        return at.remainder(size)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        at = at.remainder(period)
        return torch.minimum(at, period - at) if size > 1 else torch.zeros_like(at)
    raise ValueError(f"unknown padding mode {mode!r}")


@op("movement")
def DepthToSpace(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b, depth = blocksize, c // blocksize**2
    if mode == "DCR":
        y = x.reshape(n, b, b, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, depth, b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, depth, h * b, w * b)


@op("movement")
def SpaceToDepth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    n, c, h, w = x.shape
    b = blocksize
    y = x.reshape(n, c, h // b, b, w // b, b)
    y = y.permute(0, 3, 5, 1, 2, 4) if mode == "DCR" else y.permute(0, 1, 3, 5, 2, 4)
    return y.reshape(n, c * b * b, h // b, w // b)


@op("movement", since=10)
def ReverseSequence(
    x: Tensor, sequence_lens: Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> Tensor:
    """Each batch entry's first `sequence_lens` steps are reversed, the rest stay."""
    y = x.movedim((batch_axis, time_axis), (0, 1))
    at = torch.arange(y.shape[1], device=x.device)
    lengths = sequence_lens.unsqueeze(1)
    index = torch.where(at < lengths, lengths - 1 - at, at)
    rows = torch.arange(y.shape[0], device=x.device).unsqueeze(1)
    return y[rows, index].movedim((0, 1), (batch_axis, time_axis))
