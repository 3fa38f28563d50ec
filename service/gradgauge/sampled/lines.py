"""A part of long rows that stands for the whole where all of it would only tell a direction."""

import math

from torch import Tensor

LONG = 1 << 17  # elements of a row from which on a part is taken
LINE = 16  # elements side by side: what a processor reads at once
LINES = 1 << 11  # about how many of them


def in_part(rows: Tensor) -> Tensor:
    """Lines of each row, evenly spread, shape (..., about LINES * LINE); short rows as they are.

    Their distance shares no divisor with their number: they meet every place of whatever repeats
    along the row, as features and channels do. Between two such parts a cosine c has a standard
    error of about (1 - c^2) / sqrt(LINES) where elements side by side are the same, and of a
    quarter of that where they are independent.
    """
    if rows.shape[-1] < LONG:
        return rows
    count = rows.shape[-1] // LINE
    step = count // LINES
    while math.gcd(step, count) > 1:
        step += 1
    cut = rows[..., : count * LINE].reshape(*rows.shape[:-1], count, LINE)
    return cut[..., step // 2 :: step, :].flatten(-2)
