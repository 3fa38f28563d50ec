"""What each axis of a value stands for (batch, position, feature), followed through reshapes.

Values are those of one input, so that the batch's axis has size 1 and may be lost or doubled.
"""

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


def guess(shape: Sequence[int]) -> str:
    """Roles by shape alone: features last."""
    roles = ["p"] * len(shape)
    if roles:
        roles[-1] = "f"
    return "".join(roles)


def transposed(axes: str, perm: Sequence[int]) -> str:
    """Roles after a transposition."""
    return "".join(axes[i] for i in perm)


def reshaped(shape: Sequence[int], axes: str, target: Sequence[int]) -> str:
    """Roles after a reshape that keeps the order of elements: axis groups of equal size align."""
    if 0 in (*shape, *target):
        return guess(target)
    roles: list[str] = []
    i = 0
    for taken, made in _groups(shape, target):
        roles.extend(_split(axes[i : i + len(taken)], taken, made))
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


def _split(axes: str, taken: Sequence[int], made: Sequence[int]) -> list[str]:
    """Roles of the axes one group is cut into."""
    if tuple(taken) == tuple(made):
        return list(axes)
    held = {a for a, n in zip(axes, taken, strict=True) if n > 1} or set(axes) or {"p"}
    if len(held) == 1:
        return [held.pop()] * len(made)
    # Positions folded into features: one channel per position from here on.
    return ["f"] * len(made)
