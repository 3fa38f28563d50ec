"""A part of a stage's work: what it may take of the time, and the share done of the whole."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gradgauge.sampled.budget import Budget

USED = 0.9  # of a turn's time that it plans with


@dataclass(frozen=True, slots=True)
class Turn:
    """From `start` on this `width` of the whole, with `left` turns to come, this one among them."""

    tell: Callable[[float], None] = lambda _share: None
    start: float = 0.0
    width: float = 1.0
    left: int = 1

    def done(self, share: float) -> None:
        """Say that this share of it is done."""
        self.tell(self.start + self.width * share)

    def piece(self, start: float, width: float) -> "Turn":
        """A part of it."""
        return replace(self, start=self.start + self.width * start, width=self.width * width)

    def part(self, budget: Budget) -> Budget:
        """What it should end within, so that those to come have as much."""
        return budget.part(USED / self.left)


ALONE = Turn()
