"""Ops whose output's size depends on the data, and products along an axis."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradgauge.ops.row import op


@op("movement", since=9)
def Compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Tensor:
    """`condition` may be shorter than the axis; what lies beyond it is left out."""
    kept = torch.nonzero(condition).reshape(-1)
    return x.reshape(-1)[kept] if axis is None else x.index_select(axis, kept)


@op("reduction", since=26)
def CumProd(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    at = int(axis)
    y = x.flip(at) if reverse else x
    if exclusive:
        ones = torch.ones_like(y.narrow(at, 0, min(1, y.shape[at])))
        y = torch.cat((ones, y.narrow(at, 0, max(y.shape[at] - 1, 0))), at)
    y = y.cumprod(at, dtype=x.dtype)
    return y.flip(at) if reverse else y


@op("contraction", since=11)
def Det(x: Tensor) -> Tensor:
    y: Tensor = torch.linalg.det(x)
    return y


@op("plumbing", since=11)
def Unique(x: Any, *, axis: int | None = None, sorted: int = 1) -> tuple[Any, ...]:
    """Values, first places, each element's value, counts; the values keep their gradient."""
    array = x
    if isinstance(x, Tensor):
        array = (x.double() if x.is_floating_point() else x).detach().cpu().numpy()
    _, first, inverse, counts = np.unique(
        array, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        first, counts, inverse = first[order], counts[order], rank[inverse]
    at, where, many = (torch.from_numpy(v.astype(np.int64)) for v in (first, inverse, counts))
    if not isinstance(x, Tensor):
        return np.take(x, first, axis=axis), at, where, many
    at, where, many = (v.to(x.device) for v in (at, where, many))
    values = x.reshape(-1)[at] if axis is None else x.index_select(axis, at)
    return values, at, where, many


def _corners(boxes: Tensor, center_point_box: int) -> tuple[Tensor, ...]:
    """y1, x1, y2, x2 with the smaller first."""
    if center_point_box:
        x, y, w, h = boxes.unbind(-1)
        return y - h / 2, x - w / 2, y + h / 2, x + w / 2
    y1, x1, y2, x2 = boxes.unbind(-1)
    lows, highs = (torch.minimum, torch.maximum)
    return lows(y1, y2), lows(x1, x2), highs(y1, y2), highs(x1, x2)


def _overlap(boxes: tuple[Tensor, ...], k: int) -> Tensor:
    """Intersection over union of box k with all."""
    y1, x1, y2, x2 = boxes
    height = (torch.minimum(y2, y2[k]) - torch.maximum(y1, y1[k])).clamp(min=0)
    width = (torch.minimum(x2, x2[k]) - torch.maximum(x1, x1[k])).clamp(min=0)
    areas = (y2 - y1) * (x2 - x1)
    inner = height * width
    union = areas + areas[k] - inner
    return torch.where(union > 0, inner / union.clamp(min=1e-30), torch.zeros_like(inner))


@op("plumbing", since=10)
def NonMaxSuppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Tensor | None = None,
    iou_threshold: Tensor | None = None,
    score_threshold: Tensor | None = None,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """Greedy, best score first; result [selected, 3] of batch, class, box."""
    most = 0 if max_output_boxes_per_class is None else int(max_output_boxes_per_class)
    overlap = 0.0 if iou_threshold is None else float(iou_threshold.detach())
    picked = []
    for batch in range(scores.shape[0] if most > 0 else 0):
        corners = _corners(boxes[batch].detach(), center_point_box)
        for kind, row in enumerate(scores[batch].detach()):
            left = torch.ones_like(row, dtype=torch.bool)
            if score_threshold is not None:
                left = row > score_threshold.detach().reshape(())
            order = torch.argsort(row, descending=True, stable=True).tolist()
            picked += [(batch, kind, k) for k in _greedy(order, left, corners, overlap, most)]
    return torch.tensor(picked, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _greedy(
    order: list[int], left: Tensor, corners: tuple[Tensor, ...], overlap: float, most: int
) -> list[int]:
    found: list[int] = []
    for k in order:
        if len(found) == most:
            break
        if bool(left[k]):
            found.append(k)
            left = left & (_overlap(corners, k) <= overlap)
    return found
