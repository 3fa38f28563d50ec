"""How much of the engine's work is done, told from how long its passes have taken so far."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

# of each stage, in passes: medians over the networks of benchmarks/RESULTS.md
COSTS = {
    "samples": 3.6,
    "representation": 0.6,
    "recurrence": 3.1,
    "jacobian": 8.0,
    "precision": 1.8,
    "first_step": 0.5,
    "memorisation": 40.0,
}


@dataclass(slots=True)
class Pace:
    """Time gone over time gone and time to come, never less than was told before."""

    tell: Callable[[float], None]
    passes: int
    stages: Collection[str] = ()
    clock: Callable[[], float] = time.perf_counter
    _began: float = 0.0
    _drawn: int = 0
    _each: float = 0.0
    _told: float = 0.0
    _to_come: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """The clock starts here."""
        self._began = self.clock()
        self._to_come = set(self.stages)

    def passed(self) -> None:
        """One pass is done."""
        self._drawn += 1
        self._each = (self.clock() - self._began) / self._drawn
        self._say(max(0, self.passes - self._drawn))

    def staged(self, name: str) -> None:
        """A stage is done, and with it all passes."""
        self._to_come.discard(name)
        self._say(0)

    def _say(self, passes: int) -> None:
        gone = self.clock() - self._began
        left = self._each * (passes + sum(COSTS[name] for name in self._to_come))
        if not passes and not self._to_come:
            self._told = 1.0
        elif gone + left > 0:
            self._told = max(self._told, gone / (gone + left))
        self.tell(self._told)
