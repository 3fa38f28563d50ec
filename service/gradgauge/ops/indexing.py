"""Ops that read or write elements at positions held in a tensor."""

import torch
from torch import Tensor

from gradgauge.ops.row import op

_REDUCE = {"mul": "prod", "max": "amax", "min": "amin", "add": "sum"}


def _within(indices: Tensor, size: int) -> Tensor:
    """Indices counted from the front; torch on CUDA would abort where one is out of range."""
    if not indices.numel():
        return indices.long()
    one = indices.numel() == 1
    low, high = (int(v) for v in ((indices,) * 2 if one else torch.aminmax(indices)))
    if low < -size or high >= size:
        raise IndexError(f"index {low if low < -size else high} out of range for size {size}")
    return (indices if low >= 0 else torch.where(indices < 0, indices + size, indices)).long()


@op("movement")
def Gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.dim()
    if not indices.dim():  # one slice is a view, as in torch
        return x.select(axis, int(indices))
    at = _within(indices, x.shape[axis])
    y = x.index_select(axis, at.reshape(-1))
    return y.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@op("movement", since=11)
def GatherElements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return x.gather(axis, _within(indices, x.shape[axis]))


def _linear(indices: Tensor, sizes: torch.Size) -> Tensor:
    """[..., k] coordinates into positions in the k flattened axes of `sizes`."""
    position = torch.zeros_like(indices[..., 0], dtype=torch.long)
    for k, size in enumerate(sizes):
        position = position * size + _within(indices[..., k], size)
    return position


@op("movement", since=11)
def GatherND(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Shapes: indices [b..., i..., k] of x [b..., k axes, r...]; result [b..., i..., r...]."""
    k = indices.shape[-1]
    batch, picked = x.shape[:batch_dims], x.shape[batch_dims : batch_dims + k]
    rest = x.shape[batch_dims + k :]
    at = _linear(indices, picked).reshape(batch.numel(), -1)
    rows = torch.arange(batch.numel(), device=x.device).unsqueeze(1)
    flat = x.reshape(batch.numel(), picked.numel(), *rest)
    return flat[rows, at].reshape(indices.shape[:-1] + rest)


@op("movement", since=11)
def ScatterElements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Tensor:
    at = _within(indices, x.shape[axis])
    if reduction == "none":
        return x.scatter(axis, at, updates)
    return x.scatter_reduce(axis, at, updates, _REDUCE[reduction])


op("movement", name="Scatter", since=9)(ScatterElements)


@op("movement", since=11)
def ScatterND(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Tensor:
    """Shapes: indices [i..., k], updates [i..., r...], x [k axes, r...]."""
    k = indices.shape[-1]
    rest = x.shape[k:]
    at = _linear(indices, x.shape[:k]).reshape(-1, 1).expand(-1, rest.numel())
    flat = x.reshape(x.shape[:k].numel(), rest.numel())
    new = updates.reshape(-1, rest.numel())
    if reduction == "none":
        y = flat.scatter(0, at, new)
    else:
        y = flat.scatter_reduce(0, at, new, _REDUCE[reduction])
    return y.reshape(x.shape)


@op("plumbing", since=9)
def OneHot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Tensor:
    """`values` is [off, on]; an index outside [-depth, depth) is off everywhere."""
    size = int(depth.detach())
    at = indices.long().unsqueeze(axis)
    at = torch.where(at < 0, at + size, at)
    shape = [1] * at.dim()
    shape[axis] = size
    hot = at == torch.arange(size, device=indices.device).reshape(shape)
    return torch.where(hot, values[1], values[0])
