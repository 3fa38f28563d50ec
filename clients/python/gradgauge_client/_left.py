"""How much longer what is under way will take, told from how long it has taken so far."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

SINCE = 2.0  # seconds of a stage, and share of it, before which nothing is foretold
SHARE = 0.01


@dataclass(slots=True)
class Left:
    """By the pace of the stage under way; its share may start above 0, as a whole job's does."""

    clock: Callable[[], float] = time.monotonic
    _stage: str | None = None
    _since: float = 0.0
    _from: float = 0.0

    def words(self, stage: str, done: float) -> str:
        """What is added to a line of progress, where anything can be said."""
        now = self.clock()
        if stage != self._stage or done < self._from:
            self._stage, self._since, self._from = stage, now, done
        gone, share = now - self._since, done - self._from
        if gone < SINCE or share < SHARE or done >= 1.0:
            return ""
        return f", about {_spoken(gone * (1.0 - done) / share)} left"


def _spoken(seconds: float) -> str:
    """Rounded up as coarsely as such a guess is good for."""
    if seconds <= 90:
        return f"{10 * max(1, math.ceil(seconds / 10))} s"
    if seconds <= 90 * 60:
        return f"{math.ceil(seconds / 60)} min"
    return f"{math.ceil(seconds / 3600)} h"
