"""What each axis of a value stands for (batch, position, feature), followed through reshapes."""

import math
from collections.abc import Sequence


def of_input(rank: int, batch_axis: int | None) -> str:
    """Roles of a graph input: N,C,H,W for images, features last otherwise."""
    roles = ["p"] * rank
    if rank:
        roles[1 if rank >= 4 and batch_axis != 1 else -1] = "f"
    if batch_axis is not None:
        roles[batch_axis] = "b"
    return "".join(roles)


def guess(shape: Sequence[int], batch: int) -> str:
    """Roles by shape alone: a leading axis of the batch's size, features last."""
    roles = ["p"] * len(shape)
    if roles:
        roles[-1] = "f"
    if batch > 1 and len(shape) > 1 and shape[0] == batch:
        roles[0] = "b"
    return "".join(roles)


def transposed(axes: str, perm: Sequence[int]) -> str:
    """Roles after a transposition."""
    return "".join(axes[i] for i in perm)


def reshaped(shape: Sequence[int], axes: str, target: Sequence[int], batch: int) -> str:
    """Roles after a reshape that keeps the order of elements: axis groups of equal size align."""
    if 0 in (*shape, *target):
        return guess(target, batch)
    roles: list[str] = []
    i = 0
    for group in _groups(shape, target):
        taken, made = group
        roles.extend(_split(axes[i : i + len(taken)], taken, made, batch))
        i += len(taken)
    return "".join(roles)


def _groups(
    shape: Sequence[int], target: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The finest cut of both shapes into runs of axes of equal product."""
    groups, i, j = [], 0, 0
    while i < len(shape) or j < len(target):
        a, b = i, j
        i, j = min(i + 1, len(shape)), min(j + 1, len(target))
        while math.prod(shape[a:i]) != math.prod(target[b:j]):
            if math.prod(shape[a:i]) < math.prod(target[b:j]):
                i += 1
            else:
                j += 1
        groups.append((tuple(shape[a:i]), tuple(target[b:j])))
    return groups


def _split(axes: str, taken: Sequence[int], made: Sequence[int], batch: int) -> list[str]:
    """Roles of the axes one group is cut into."""
    if tuple(taken) == tuple(made):
        return list(axes)
    held = {a for a, n in zip(axes, taken, strict=True) if n > 1} or set(axes) or {"p"}
    if held <= {"b", "p", "n"} and held & {"b", "n"}:
        return _rows(made, batch, whole=held == {"b"})
    if len(held) == 1:
        return [held.pop()] * len(made)
    # Positions folded into features: one channel per position from here on.
    return ["f"] * len(made)


def _rows(made: Sequence[int], batch: int, *, whole: bool) -> list[str]:
    """Batch and positions, merged ("n") or told apart by the batch's size."""
    large = [i for i, n in enumerate(made) if n > 1]
    if len(large) <= 1:
        role = "b" if whole or math.prod(made) == batch else "n"
        return [role if i in large or not large else "p" for i in range(len(made))]
    place = next((i for i in large if made[i] == batch), large[0])
    return ["b" if i == place else "p" for i in range(len(made))]
