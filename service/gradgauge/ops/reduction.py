"""Ops that fold an axis: sums, extremes, running sums, sorting."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradgauge.ops.row import Run, op

Fold = Callable[[Tensor, tuple[int, ...], int], Tensor]


def _mean(x: Tensor, axes: tuple[int, ...], keepdim: int) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, bool(keepdim))
    if any(x.shape[a] == 0 for a in axes):
        raise ValueError("the mean of no integers")
    return x.double().mean(axes, bool(keepdim)).to(x.dtype)


def _prod(x: Tensor, axes: tuple[int, ...], keepdim: int) -> Tensor:
    for axis in sorted((a % max(x.dim(), 1) for a in axes), reverse=True):
        x = x.prod(axis, keepdim=bool(keepdim), dtype=x.dtype)
    return x


def _extreme(fold: Callable[..., Tensor]) -> Fold:
    def folded(x: Tensor, axes: tuple[int, ...], keepdim: int) -> Tensor:
        if any(x.shape[a] == 0 for a in axes):
            return _of_nothing(x, axes, keepdim, largest=fold is torch.amax)
        if x.dtype == torch.bool:
            return fold(x.byte(), axes, bool(keepdim)).bool()
        return fold(x, axes, bool(keepdim))

    return folded


def _of_nothing(x: Tensor, axes: tuple[int, ...], keepdim: int, *, largest: bool) -> Tensor:
    """The least number for a maximum, the greatest for a minimum (ONNX ReduceMax-20)."""
    if x.is_floating_point():
        bound: float = -math.inf if largest else math.inf
    elif x.dtype == torch.bool:
        bound = 0 if largest else 1
    else:
        bound = torch.iinfo(x.dtype).min if largest else torch.iinfo(x.dtype).max
    # the sum over nothing keeps the shape and the path a gradient takes
    zero = x.sum(axes, bool(keepdim)).to(x.dtype)
    return torch.full_like(zero, bound) + zero if x.is_floating_point() else zero.fill_(bound)


def _sum(x: Tensor, axes: tuple[int, ...], keepdim: int) -> Tensor:
    return x.sum(axes, bool(keepdim), dtype=x.dtype)


def _l2(x: Tensor, axes: tuple[int, ...], keepdim: int) -> Tensor:
    """vector_norm has gradient zero, not NaN, at the zero vector."""
    wide = x if x.is_floating_point() else x.double()
    norm: Tensor = torch.linalg.vector_norm(wide, 2, axes, bool(keepdim))
    return norm.to(x.dtype)


_FOLDS: dict[str, tuple[int, Fold]] = {
    "ReduceL1": (18, lambda x, a, k: _sum(x.abs(), a, k)),
    "ReduceL2": (18, _l2),
    "ReduceLogSum": (18, lambda x, a, k: _sum(x, a, k).log()),
    "ReduceLogSumExp": (18, lambda x, a, k: torch.logsumexp(x, a, bool(k))),
    "ReduceMax": (18, _extreme(torch.amax)),
    "ReduceMean": (18, _mean),
    "ReduceMin": (18, _extreme(torch.amin)),
    "ReduceProd": (18, _prod),
    "ReduceSum": (13, _sum),
    "ReduceSumSquare": (18, lambda x, a, k: _sum(x.square(), a, k)),
}


def _with_attribute(fold: Fold) -> Run:
    def run(x: Tensor, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Tensor:
        return fold(x, tuple(axes or range(x.dim())), keepdims)

    return run


def _with_input(fold: Fold) -> Run:
    def run(
        x: Tensor,
        axes: Tensor | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        given = () if axes is None else tuple(axes.reshape(-1).tolist())
        if not given and noop_with_empty_axes:
            # no axis is folded, but the function of each element still applies (ReduceL2 of one)
            return fold(x.unsqueeze(0), (0,), 0)
        return fold(x, given or tuple(range(x.dim())), keepdims)

    return run


for _name, (_moved, _fold) in _FOLDS.items():
    op("reduction", name=_name)(_with_attribute(_fold))
    op("reduction", name=_name, since=_moved)(_with_input(_fold))


def _extreme_at(
    x: Tensor, axis: int, keepdims: int, select_last_index: int, *, largest: bool
) -> Tensor:
    if select_last_index:
        x = x.flip(axis)
    find = torch.argmax if largest else torch.argmin
    at = find(x, axis, keepdim=bool(keepdims))
    return x.shape[axis] - 1 - at if select_last_index else at


@op("reduction")
def ArgMax(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _extreme_at(x, axis, keepdims, select_last_index, largest=True)


@op("reduction")
def ArgMin(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    return _extreme_at(x, axis, keepdims, select_last_index, largest=False)


@op("reduction", since=11)
def CumSum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    at = int(axis)
    y = x.flip(at) if reverse else x
    total = y.cumsum(at, dtype=x.dtype)
    if exclusive:
        total = total - y
    return total.flip(at) if reverse else total


@op("reduction", since=10)
def TopK(
    x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """Ties go to the lower index, which torch.topk does not promise."""
    del sorted
    count = int(k)
    values, indices = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
