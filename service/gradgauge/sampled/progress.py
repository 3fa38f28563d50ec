"""How much of the engine's work is done, told from how long its passes have taken so far."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# of each stage that is run, in passes: medians of `python -m benchmarks.progress`
COSTS = {
    "samples": 1.0,
    "representation": 0.3,
    "recurrence": 1.5,
    "jacobian": 1.4,
    "precision": 0.4,
    "first_step": 0.1,
    "memorisation": 90.0,
}
# where profile deep does more in one stage than seeds and rounds say: it runs narrow formats
DEEP = {"precision": 2.6}


@dataclass(slots=True)
class Pace:
    """Time gone over time gone and time to come, never less than was told before.

    `stages` is what each stage to come is foretold to cost, in passes.
    """

    tell: Callable[[float], None]
    passes: int
    stages: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter
    _began: float = 0.0
    _since: float = 0.0
    _drawn: int = 0
    _each: float = 0.0
    _told: float = 0.0
    _to_come: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The clock starts here."""
        self._began = self._since = self.clock()
        self._to_come = dict(self.stages)

    def passed(self) -> None:
        """One pass is done."""
        self._drawn += 1
        self._since = self.clock()
        self._each = (self._since - self._began) / self._drawn
        self._say(self._each * max(0, self.passes - self._drawn))

    def partly(self, share: float) -> None:
        """Of the stage that runs now, the next one, this share above 0 is done."""
        name = next(iter(self._to_come), None)
        if name is not None:
            self._to_come[name] = 0.0
            self._say((self.clock() - self._since) * (1.0 - share) / share)

    def staged(self, name: str) -> None:
        """A stage is done, and with it all passes."""
        self._to_come.pop(name, None)
        self._since = self.clock()
        self._say(0.0)

    def _say(self, left: float) -> None:
        """`left` are the seconds to come of what is under way."""
        gone = self.clock() - self._began
        left += self._each * sum(self._to_come.values())
        if not left and not self._to_come:
            self._told = 1.0
        elif gone + left > 0:
            self._told = max(self._told, gone / (gone + left))
        self.tell(self._told)
