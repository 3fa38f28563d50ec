"""Sequences (Python lists of tensors) and optional values (None where absent)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradgauge.ops.row import op


@op("plumbing", since=11)
def SequenceEmpty(*, dtype: Any = None) -> list[Tensor]:
    del dtype
    return []


@op("plumbing", since=11)
def SequenceConstruct(*xs: Tensor) -> list[Tensor]:
    return list(xs)


def _place(position: Tensor | None, size: int, default: int) -> int:
    """A position counted from the front; `size` is what it must stay below."""
    at = default if position is None else int(position)
    if not -size <= at < size:
        raise IndexError(f"position {at} in a sequence of {size}")
    return at % size if size else 0


@op("plumbing", since=11)
def SequenceInsert(
    sequence: list[Tensor], x: Tensor, position: Tensor | None = None
) -> list[Tensor]:
    size = len(sequence)
    at = size if position is None else int(position)
    if not -size <= at <= size:
        raise IndexError(f"position {at} in a sequence of {size}")
    at = at + size if at < 0 else at
    return [*sequence[:at], x, *sequence[at:]]


@op("plumbing", since=11)
def SequenceErase(sequence: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    at = _place(position, len(sequence), -1)
    return sequence[:at] + sequence[at + 1 :]


@op("plumbing", since=11)
def SequenceAt(sequence: list[Tensor], position: Tensor) -> Tensor:
    return sequence[_place(position, len(sequence), 0)]


@op("plumbing", since=11)
def SequenceLength(sequence: list[Tensor]) -> Tensor:
    return torch.tensor(len(sequence))


@op("plumbing", since=11)
def ConcatFromSequence(sequence: list[Tensor], *, axis: int, new_axis: int = 0) -> Tensor:
    return torch.stack(sequence, axis) if new_axis else torch.cat(sequence, axis)


@op("plumbing", since=11)
def SplitToSequence(
    x: Tensor, split: Tensor | None = None, *, axis: int = 0, keepdims: int = 1
) -> list[Tensor]:
    """A scalar `split` is each piece's size, the last one smaller; `keepdims` is for none given."""
    if split is None:
        pieces: Sequence[Tensor] = torch.split(x, 1, axis)
        return list(pieces) if keepdims else [p.squeeze(axis) for p in pieces]
    return list(torch.split(x, int(split) if split.dim() == 0 else split.tolist(), axis))


@op("plumbing", since=15)
def Optional(x: Any = None, *, type: Any = None) -> Any:
    del type
    return x


@op("plumbing", since=15)
def OptionalHasElement(x: Any = None) -> Tensor:
    return torch.tensor(x is not None)


@op("plumbing", since=15)
def OptionalGetElement(x: Any) -> Any:
    if x is None:
        raise ValueError("the optional holds no element")
    return x
