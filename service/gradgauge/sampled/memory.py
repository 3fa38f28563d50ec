"""How many inputs a pass takes at once, and which of its values it makes twice, to fit memory."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.budget import Budget

MOST = 2 << 30  # bytes a pass may hold besides weights, however much memory there is
RESERVE = 64 << 20  # bytes for what is not tensors
SHARE = 0.7  # of the rest that a pass may plan with: an allocator keeps some of what is let go
SLACK = 4.0  # times what a pass holds that an allocator may come to hold for it
GRADIENTS = 1 << 29  # bytes of weights' gradients that are held at once
PART = 0.25  # of the memory that they may take
FEWEST, MANY = 2, 256  # pieces tried


@dataclass(frozen=True, slots=True)
class Course:
    """What a pass has saved for its backward pass, and what it holds, before each of its steps.

    In bytes of float32 values, weights not counted; one entry more than there are steps. What is
    held counts outputs and their like; of what is saved some is held too.
    """

    saved: np.ndarray
    held: np.ndarray

    def at(self, scale: float) -> "Course":
        """For so many times the bytes."""
        return Course(self.saved * scale, self.held * scale)

    @property
    def whole(self) -> float:
        """Bytes where everything saved is kept."""
        return float(self.saved[-1] + self._passing)

    def cut(self, cuts: tuple[int, ...]) -> float:
        """Bytes where only what goes from piece to piece is kept, and one piece is run again."""
        ends = [0, *cuts, len(self.saved) - 1]
        pieces = max(self.saved[b] - self.saved[a] for a, b in pairwise(ends))
        between = sum(self.held[c] for c in cuts)
        return float(between + pieces + self._passing)

    @property
    def _passing(self) -> float:
        """What a step takes, a gradient of the same size on the way back, and the cotangents."""
        return 3.0 * float(self.held.max())

    def cuts(self, count: int) -> tuple[int, ...]:
        """Places for so many pieces that save alike, each where the least goes on nearby."""
        found = set()
        width = self.saved[-1] / count
        for k in range(1, count):
            low, high = np.searchsorted(self.saved, [width * (k - 0.25), width * (k + 0.25)])
            least = np.flatnonzero(self.held[low : high + 1] == self.held[low : high + 1].min())
            found.add(int(low + least[abs(least - (high - low) / 2).argmin()]))
        return tuple(sorted(c for c in found if 0 < c < len(self.saved) - 1))


@dataclass(frozen=True, slots=True)
class Courses:
    """Of one input, and besides those whatever the batch."""

    each: Course
    besides: Course

    def of(self, rows: int, dtype: torch.dtype) -> Course:
        """Of so many inputs in this number type."""
        scale = dtype.itemsize / 4
        saved = self.each.saved * rows + self.besides.saved
        held = self.each.held * rows + self.besides.held
        return Course(saved, held).at(scale)

    def fitting(self, memory: float, dtype: torch.dtype, most: int) -> int:
        """How many inputs a pass may take at once, at least one."""
        low, high = 1, max(1, most)
        while low < high:
            middle = (low + high + 1) // 2
            if self.of(middle, dtype).whole <= memory:
                low = middle
            else:
                high = middle - 1
        return low

    def cuts(self, memory: float, rows: int, dtype: torch.dtype) -> tuple[int, ...]:
        """Where to cut a pass that holds too much otherwise; into as few pieces as will do."""
        course = self.of(rows, dtype)
        if course.whole <= memory:
            return ()
        best: tuple[int, ...] = ()
        for count in _counts(len(course.saved)):
            cuts = course.cuts(count)
            if course.cut(cuts) < course.cut(best):
                best = cuts
            if course.cut(best) <= memory:
                break
        return best


def _counts(steps: int) -> list[int]:
    """2, 3, 4, 6, 8, 12, 16, ... pieces."""
    most = min(MANY, max(FEWEST, steps))
    counts = {round(2.0 ** (k / 2)) for k in range(2, 2 * math.ceil(math.log2(most)) + 1)}
    return sorted(c for c in counts if c <= most)


def lines(small: Course, large: Course, at: int) -> Courses:
    """From the courses of two batch sizes that differ by one, the smaller of them `at`."""
    saved, held = large.saved - small.saved, large.held - small.held
    each = Course(np.maximum(saved, 0.0), np.maximum(held, 0.0))
    rest = Course(
        np.maximum(small.saved - at * each.saved, 0.0), np.maximum(small.held - at * each.held, 0.0)
    )
    return Courses(each, rest)


def scarce(budget: Budget, bytes_: float) -> bool:
    """Whether a pass that holds so many bytes must not count on more for the allocator."""
    return budget.live_bytes is not None and SLACK * bytes_ > budget.live_bytes


def must_spare(budget: Budget, weights: Mapping[str, Tensor], dtype: torch.dtype) -> bool:
    """Whether the weights' gradients are too much to be held at once."""
    size = sum(x.numel() for x in weights.values()) * dtype.itemsize
    limit = budget.live_bytes
    return size > GRADIENTS or (limit is not None and size > PART * max(0, limit - RESERVE))


def room(
    budget: Budget,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
    mapped: Collection[str] = (),
    *,
    gradients: bool = True,
    sparing: bool = False,
) -> int:
    """Bytes a pass may hold besides the weights in its number type and their gradients.

    Those `mapped` lie in files, whose pages count for nothing. A `sparing` pass holds the gradient
    of one weight, while it is measured.
    """
    if budget.live_bytes is None:
        return MOST
    held = sum(x.numel() for name, x in weights.items() if name not in mapped)
    if gradients:
        sizes = [x.numel() for x in weights.values()]
        held += max(sizes, default=0) if sparing else sum(sizes)
    left = budget.live_bytes - RESERVE - held * dtype.itemsize
    return max(0, min(MOST, int(SHARE * left)))
